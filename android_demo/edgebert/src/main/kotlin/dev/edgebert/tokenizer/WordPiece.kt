package dev.edgebert.tokenizer

/** BERT's model: the longest piece that a word begins with, then the longest of what is left, and so on. */
internal class WordPiece(
    override val pieces: Pieces,
    private val unknown: String,
    val continuingPrefix: String,
    private val longest: Int,
) : Model {
    override val kind: String get() = "wordpiece"
    override val count: Int get() = pieces.count

    private val unknownId = pieces.id(unknown).also { if (it == Trie.NONE) refuse("its vocabulary has no $unknown, which stands for what it cannot spell") }
    private val inside = pieces.trie.walk(codePoints(continuingPrefix) { _, _ -> refuse("its continuing_subword_prefix is no text") })

    override fun tokenize(word: Span, tokens: Tokens) {
        val before = tokens.size
        if (word.to - word.from <= longest && split(word, tokens)) return
        tokens.size = before
        tokens.add(unknownId, unknown, word.text, word.from, word.to)
    }

    /** Adds the pieces as far as there are any; whether that is to the end. */
    private fun split(word: Span, tokens: Tokens): Boolean {
        val trie = pieces.trie
        val codes = word.text.codes
        var start = word.from
        while (start < word.to) {
            var node = if (start == word.from) Trie.ROOT else inside
            var id = Trie.NONE
            var end = start
            var i = start
            while (i < word.to && node != Trie.NONE) {
                node = trie.stepCode(node, codes[i++])
                if (node == Trie.NONE || trie.value(node) == Trie.NONE) continue
                id = trie.value(node)
                end = i
            }
            if (id == Trie.NONE) return false
            tokens.add(id, checkNotNull(pieces.piece(id)), word.text, start, end)
            start = end
        }
        return true
    }
}
