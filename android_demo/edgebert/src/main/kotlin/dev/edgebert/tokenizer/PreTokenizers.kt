package dev.edgebert.tokenizer

/** Splits a text into words. */
internal fun interface PreTokenizer {
    /** Adds what [span], which is no added token, is split into. */
    fun split(span: Span, words: MutableList<Span>)
}

/** What becomes of the delimiters at which a text is split. */
internal enum class Delimiters { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS }

/** Splits at code points, one by one. */
internal class SplitAt(private val delimiters: Delimiters, private val at: (Int) -> Boolean) : PreTokenizer {
    override fun split(span: Span, words: MutableList<Span>) {
        val codes = span.text.codes
        var start = span.from // of the word that is not yet added
        var previous = false // whether the code point before is a delimiter
        for (i in span.from until span.to) {
            val now = at(codes[i])
            if (i > start && cuts(previous, now)) {
                if (!previous || delimiters != Delimiters.REMOVED) words.add(Span(span.text, start, i))
                start = i
            }
            previous = now
        }
        if (start < span.to && !(previous && delimiters == Delimiters.REMOVED)) words.add(Span(span.text, start, span.to))
    }

    /** Whether a word ends between two code points that are delimiters or not. */
    private fun cuts(previous: Boolean, now: Boolean): Boolean = when (delimiters) {
        Delimiters.REMOVED, Delimiters.ISOLATED -> previous || now
        Delimiters.MERGED_WITH_PREVIOUS -> previous
        Delimiters.MERGED_WITH_NEXT -> now
        Delimiters.CONTIGUOUS -> previous != now
    }
}

/** Words and what is neither word nor white space, as `\w+|[^\w\s]+` finds them. */
internal object Whitespace : PreTokenizer {
    override fun split(span: Span, words: MutableList<Span>) {
        val codes = span.text.codes
        var start = span.from
        while (start < span.to) {
            val kind = kind(codes[start])
            var end = start + 1
            while (end < span.to && kind(codes[end]) == kind) end++
            if (kind != WHITE) words.add(Span(span.text, start, end))
            start = end
        }
    }

    private fun kind(code: Int): Int = if (Unicode.isWhite(code)) WHITE else if (Unicode.isWord(code)) WORD else OTHER

    private const val WHITE = 0
    private const val WORD = 1
    private const val OTHER = 2
}

/** SentencePiece's: spaces become [mark], with which words begin. */
internal class Metaspace(private val mark: Int, private val prepend: Prepended, private val splits: Boolean) : PreTokenizer {
    /** Whether a mark is put before a text that has none. */
    enum class Prepended { ALWAYS, FIRST, NEVER }

    override fun split(span: Span, words: MutableList<Span>) {
        val text = span.text.part(span.from, span.to)
        for (i in 0 until text.size) if (text.codes[i] == ' '.code) text.codes[i] = mark
        val missing = prepend == Prepended.ALWAYS || prepend == Prepended.FIRST && text.starts[0] == 0
        if (missing && text.codes[0] != mark) text.prepend(intArrayOf(mark))
        var start = 0
        if (splits) {
            for (i in 1 until text.size) {
                if (text.codes[i] != mark) continue
                words.add(Span(text, start, i))
                start = i
            }
        }
        words.add(Span(text, start, text.size))
    }
}
