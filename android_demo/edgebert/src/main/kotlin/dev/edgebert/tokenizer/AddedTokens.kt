package dev.edgebert.tokenizer

/**
 * A token that text is never split inside of.
 *
 * @property singleWord only where no word's character stands on either side.
 * @property takesLeft it takes the white space before it along; [takesRight] that after it.
 * @property normalized it is looked for in the normalized text, as it is itself normalized; else in the text as it came.
 * @property special it is left out when decoding.
 */
internal data class AddedToken(
    val content: String,
    val singleWord: Boolean = false,
    val takesLeft: Boolean = false,
    val takesRight: Boolean = false,
    val normalized: Boolean = false,
    val special: Boolean = false,
)

/** The tokens added on top of a model's vocabulary, with the ids that the Rust library gives them. */
internal class AddedTokens(private val model: Model, private val normalizer: Normalizer?) {
    private val ids = HashMap<String, Int>()
    private val tokens = LinkedHashMap<Int, AddedToken>()
    private val special = HashSet<String>()
    private val spelled = HashMap<Int, String>() // of normalized ones: how they look then
    private var raw = Finder()
    private var normal = Finder()

    /** Every added token's id is below it. */
    val size: Int get() = (ids.values.maxOrNull() ?: -1) + 1

    /** Adds tokens: those of the vocabulary keep their ids, others get the next ones, whatever a file says. */
    fun add(more: List<AddedToken>) {
        val highest = tokens.keys.maxOrNull()
        var next = if (highest != null && (highest >= model.count || model.count == 0)) highest + 1 else model.count
        for (token in more) {
            if (token.content.isEmpty() || tokens[ids[token.content]] == token) continue
            val id = id(token.content) ?: next++
            ids[token.content] = id
            tokens[id] = token
            if (token.special) special += token.content
            if (token.normalized && normalizer != null) spelled[id] = normalizedForm(token.content)
        }
        // Where two look alike once normalized, which one is found is chance in the Rust library; here the first.
        raw = Finder()
        normal = Finder()
        for ((id, token) in tokens) {
            val finder = if (token.normalized) normal else raw
            finder.add(codes(if (token.normalized) spelled[id] ?: token.content else token.content), id)
        }
    }

    /** The id of a text, in the vocabulary too. */
    fun id(content: String): Int? = ids[content] ?: model.pieces.id(content).takeIf { it != Trie.NONE }

    /** How an id is spelled, also one of the vocabulary; null where there is none. */
    fun token(id: Int): String? = spelled[id] ?: tokens[id]?.content ?: model.pieces.piece(id)

    fun isAdded(content: String): Boolean = tokens.values.any { it.content == content }

    fun isSpecial(token: String): Boolean = token in special

    /** Cuts a text into added tokens and what lies between, which is normalized. */
    fun split(original: IntArray): List<Span> {
        val spans = ArrayList<Span>()
        for (part in cut(Span(NormalizedText.of(original, 0, original.size), 0, original.size), raw)) {
            if (part.id != Span.NONE) {
                spans += part
                continue
            }
            val text = part.text.part(part.from, part.to)
            normalizer?.normalize(text)
            spans += cut(Span(text, 0, text.size), normal)
        }
        return spans
    }

    private fun cut(span: Span, finder: Finder): List<Span> {
        val text = span.text
        if (text.size == 0) return emptyList()
        if (finder.isEmpty) return listOf(span)
        val found = ArrayList<Span>()
        var done = 0
        finder.each(text) { from, to, id ->
            val token = tokens.getValue(id)
            val fits = !token.singleWord ||
                (from == 0 || !Unicode.isWord(text.codes[from - 1])) && (to == text.size || !Unicode.isWord(text.codes[to]))
            if (fits) {
                var start = from
                var end = to
                if (token.takesLeft) {
                    while (start > 0 && Unicode.isWhite(text.codes[start - 1])) start--
                    start = maxOf(start, done)
                }
                if (token.takesRight) while (end < text.size && Unicode.isWhite(text.codes[end])) end++
                if (done < start) found += Span(text, done, start)
                found += Span(text, start, end, id)
                done = end
            }
        }
        if (done != text.size) found += Span(text, done, text.size)
        return found
    }

    private fun normalizedForm(content: String): String {
        val codes = codes(content)
        val text = NormalizedText.of(codes, 0, codes.size)
        normalizer?.normalize(text)
        return text.string(0, text.size)
    }

    private fun codes(content: String): IntArray =
        codePoints(content) { _, unit -> refuse("an added token has the lone surrogate ${codeName(unit)}") }
}

/** Finds texts from left to right, at each place the longest, and goes on after it. */
private class Finder {
    private val trie = Trie()
    var isEmpty = true
        private set

    fun add(codes: IntArray, id: Int) {
        if (codes.isEmpty() || trie.find(codes) != Trie.NONE) return
        val bytes = utf8(codes)
        trie.put(bytes, 0, bytes.size, id)
        isEmpty = false
    }

    inline fun each(text: NormalizedText, found: (Int, Int, Int) -> Unit) {
        var from = 0
        while (from < text.size) {
            val end = longest(text, from)
            if (end > from) found(from, end, trie.find(text.codes, from, end))
            from = maxOf(end, from + 1)
        }
    }

    /** Where the longest text ends that begins at a place; that place where none does. */
    private fun longest(text: NormalizedText, from: Int): Int {
        var end = from
        var node = Trie.ROOT
        for (i in from until text.size) {
            node = trie.stepCode(node, text.codes[i])
            if (node == Trie.NONE) break
            if (trie.value(node) != Trie.NONE) end = i + 1
        }
        return end
    }
}
