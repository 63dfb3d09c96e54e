package dev.edgebert.tokenizer

/** What stands around and between texts, as a file says it; the ids of text are given, types come out with them. */
internal interface PostProcessor {
    fun process(first: IntArray, second: IntArray?): Framed

    /** Changes where tokens are said to be. */
    fun trim(tokens: Tokens) = Unit
}

/** Ids with special ones around them, and the type of each. */
internal class Framed(val ids: List<Int>, val types: List<Int>)

/** A template of special tokens and texts, one for a single text and one for a pair. */
internal class TemplateProcessing(private val single: List<Part>, private val pair: List<Part>) : PostProcessor {
    /** Special tokens, or with none of them a text: the first or the second. */
    class Part(val specials: List<Int>?, val second: Boolean, val type: Int)

    override fun process(first: IntArray, second: IntArray?): Framed {
        val ids = ArrayList<Int>()
        val types = ArrayList<Int>()
        for (part in if (second == null) single else pair) {
            val own = part.specials ?: (if (part.second) second else first)?.toList() ?: refuse("its template for one text has a second one")
            ids += own
            own.mapTo(types) { part.type }
        }
        return Framed(ids, types)
    }
}

/** [CLS] A [SEP] B [SEP], the second text of type 1. */
internal class BertProcessing(private val cls: Int, private val sep: Int) : PostProcessor {
    override fun process(first: IntArray, second: IntArray?): Framed {
        val head = listOf(cls) + first.toList() + sep
        val tail = if (second == null) emptyList() else second.toList() + sep
        return Framed(head + tail, head.map { 0 } + tail.map { 1 })
    }
}

/** <s> A </s></s> B </s>, all of type 0; white space at the ends of a token is none of it, as the file wants it. */
internal class RobertaProcessing(
    private val cls: Int,
    private val sep: Int,
    private val trims: Boolean,
    private val prefixed: Boolean,
) : PostProcessor {
    override fun process(first: IntArray, second: IntArray?): Framed {
        val tail = if (second == null) emptyList() else listOf(sep) + second.toList() + sep
        val ids = listOf(cls) + first.toList() + sep + tail
        return Framed(ids, ids.map { 0 })
    }

    override fun trim(tokens: Tokens) {
        if (!trims) return
        for (i in 0 until tokens.size) {
            val text = checkNotNull(tokens.texts[i])
            // White space and Ġ are one unit of a String each.
            var leading = text.indexOfFirst { !isSpace(it) }.let { if (it < 0) text.length else it }
            val trailing = text.length - 1 - text.indexOfLast { !isSpace(it) }
            if (leading == 1 && prefixed && (i == 0 || tokens.starts[i] == 0)) leading = 0
            tokens.starts[i] = minOf(tokens.starts[i] + leading, tokens.ends[i])
            if (tokens.ends[i] >= trailing) tokens.ends[i] = maxOf(tokens.ends[i] - trailing, tokens.starts[i])
        }
    }

    private fun isSpace(unit: Char): Boolean = unit == 'Ġ' || unit.code < 0xD800 && Unicode.isWhite(unit.code)
}
