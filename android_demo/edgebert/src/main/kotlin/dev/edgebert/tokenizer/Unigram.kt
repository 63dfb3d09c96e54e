package dev.edgebert.tokenizer

/**
 * SentencePiece's model: of all ways to spell a word, the one whose pieces' scores add up to most. What no piece spells is
 * unknown, at ten below the lowest score a character, and such characters in a row are one token.
 *
 * @param scores float64, by id.
 */
internal class Unigram(
    override val pieces: Pieces,
    private val scores: DoubleArray,
    private val unknownId: Int,
    private val byteFallback: Boolean,
) : Model {
    override val kind: String get() = "unigram"
    override val count: Int get() = scores.size

    private val unknownScore = (scores.minOrNull() ?: 0.0) - 10.0

    override fun tokenize(word: Span, tokens: Tokens) {
        val size = word.to - word.from
        val ids = IntArray(size + 1)
        val froms = IntArray(size + 1)
        findBest(word, ids, froms)
        // From the end to the beginning, which is then turned round.
        val ends = IntArray(size + 1)
        var parts = 0
        var end = size
        while (end > 0) {
            ends[parts++] = end
            val unknown = ids[end] == unknownId
            end = froms[end]
            while (unknown && end > 0 && ids[end] == unknownId) end = froms[end]
        }
        var start = 0
        for (i in parts - 1 downTo 0) {
            add(word, start, ends[i], ids[ends[i]], tokens)
            start = ends[i]
        }
    }

    /** For each place of a word the last piece of the best way there, and where that piece begins. */
    private fun findBest(word: Span, ids: IntArray, froms: IntArray) {
        val trie = pieces.trie
        val codes = word.text.codes
        val size = word.to - word.from
        val best = DoubleArray(size + 1)
        froms.fill(NOWHERE)
        for (start in 0 until size) {
            val here = best[start]
            var single = false
            var node = Trie.ROOT
            for (end in start + 1..size) {
                node = trie.stepCode(node, codes[word.from + end - 1])
                if (node == Trie.NONE) break
                val id = trie.value(node)
                if (id == Trie.NONE) continue
                single = single || end == start + 1
                val score = scores[id] + here
                if (froms[end] != NOWHERE && score <= best[end]) continue
                best[end] = score
                froms[end] = start
                ids[end] = id
            }
            if (single) continue
            val score = unknownScore + here
            if (froms[start + 1] != NOWHERE && score <= best[start + 1]) continue
            best[start + 1] = score
            froms[start + 1] = start
            ids[start + 1] = unknownId
        }
    }

    private fun add(word: Span, from: Int, to: Int, best: Int, tokens: Tokens) {
        val start = word.from + from
        val end = word.from + to
        // Unknown characters in a row may spell a piece, so the whole is looked up.
        val known = if (best == unknownId) pieces.trie.find(word.text.codes, start, end) else best
        if (known == Trie.NONE && byteFallback && addBytes(word, start, end, tokens)) return
        val text = if (known == Trie.NONE || best == unknownId) word.text.string(start, end) else checkNotNull(pieces.piece(known))
        tokens.add(if (known == Trie.NONE) unknownId else known, text, word.text, start, end)
    }

    /** A piece for each byte, where the vocabulary has them all. */
    private fun addBytes(word: Span, start: Int, end: Int, tokens: Tokens): Boolean {
        val names = ArrayList<String>()
        for (i in start until end) {
            val code = word.text.codes[i]
            val size = utf8Size(code)
            for (k in 0 until size) names.add(bytePiece(utf8Byte(code, size, k)))
        }
        val ids = names.map { pieces.id(it) }
        if (Trie.NONE in ids) return false
        for (i in ids.indices) tokens.add(ids[i], names[i], word.text, start, end)
        return true
    }

    private fun bytePiece(byte: Int): String = "<0x${HEX[byte shr 4]}${HEX[byte and 15]}>"

    private companion object {
        const val NOWHERE = -1
        const val HEX = "0123456789ABCDEF"
    }
}
