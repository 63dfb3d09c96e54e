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

/**
 * GPT-2's: splits at `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` where it [splits], and makes of
 * each byte of UTF-8 a character that can be seen.
 *
 * @param prefixed a space is put before a text that has none.
 */
internal class ByteLevel(private val prefixed: Boolean, private val splits: Boolean) : PreTokenizer {
    override fun split(span: Span, words: MutableList<Span>) {
        val text = span.text.part(span.from, span.to)
        if (prefixed && text.codes[0] != ' '.code) text.prepend(intArrayOf(' '.code))
        val bytes = NormalizedText.ofSize((0 until text.size).sumOf { utf8Size(text.codes[it]) })
        var from = 0
        var start = 0
        while (from < text.size) {
            val end = if (splits) end(text.codes, from, text.size) else text.size
            var at = start
            for (i in from until end) at = expand(text, i, bytes, at)
            words.add(Span(bytes, start, at))
            start = at
            from = end
        }
    }

    /** Puts the bytes of a code point in their place, each from where the code point is. */
    private fun expand(text: NormalizedText, i: Int, bytes: NormalizedText, from: Int): Int {
        val code = text.codes[i]
        val size = utf8Size(code)
        for (k in 0 until size) {
            bytes.codes[from + k] = CODES[utf8Byte(code, size, k)]
            bytes.starts[from + k] = text.starts[i]
            bytes.ends[from + k] = text.ends[i]
        }
        return from + size
    }

    /** Where the word ends that begins at a place. */
    private fun end(codes: IntArray, from: Int, to: Int): Int {
        if (codes[from] == '\''.code) {
            val short = shortened(codes, from + 1, to)
            if (short > 0) return from + 1 + short
        }
        val first = if (codes[from] == ' '.code && from + 1 < to && kind(codes[from + 1]) != WHITE) from + 1 else from
        val kind = kind(codes[first])
        var end = first + 1
        while (end < to && kind(codes[end]) == kind) end++
        // Of white space before a word the last is the word's, or a word by itself.
        return if (kind == WHITE && end < to && end > from + 1) end - 1 else end
    }

    /** How many characters of s, t, re, ve, m, ll or d are at a place. */
    private fun shortened(codes: IntArray, at: Int, to: Int): Int {
        if (at >= to) return 0
        val second = if (at + 1 < to) codes[at + 1] else 0
        return when (codes[at]) {
            's'.code, 't'.code, 'm'.code, 'd'.code -> 1
            'r'.code, 'v'.code -> if (second == 'e'.code) 2 else 0
            'l'.code -> if (second == 'l'.code) 2 else 0
            else -> 0
        }
    }

    private fun kind(code: Int): Int =
        if (Unicode.isWhite(code)) WHITE else if (Unicode.isLetter(code)) LETTER else if (Unicode.isNumber(code)) NUMBER else OTHER

    companion object {
        private const val WHITE = 0
        private const val LETTER = 1
        private const val NUMBER = 2
        private const val OTHER = 3

        /** Of bytes that can be seen in Latin-1 they are those; the others have the places from U+0100 on, in their order. */
        private val CODES = IntArray(256).also { codes ->
            var next = 0x100
            for (byte in codes.indices) {
                val seen = byte in 0x21..0x7E || byte in 0xA1..0xFF && byte != 0xAD
                codes[byte] = if (seen) byte else next++
            }
        }
        private val BYTES = IntArray(CODES.max() + 1) { CODES.indexOf(it) }

        /** The byte that a code point stands for, -1 where none. */
        fun byte(code: Int): Int = if (code < BYTES.size) BYTES[code] else -1

        /** The code points that stand for bytes. */
        fun codes(): IntArray = CODES.copyOf()
    }
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
