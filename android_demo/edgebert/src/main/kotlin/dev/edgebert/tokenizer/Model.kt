package dev.edgebert.tokenizer

/** Splits words into pieces of a vocabulary. */
internal interface Model {
    val kind: String
    val pieces: Pieces

    /** How many pieces there are, as the Rust library counts them. */
    val count: Int

    /** Adds the pieces of a word. */
    fun tokenize(word: Span, tokens: Tokens)
}

/** The tokens of a text: each an id, its spelling, and from where to where in the original its source is. */
internal class Tokens(capacity: Int) {
    var ids: IntArray = IntArray(capacity)
    var starts: IntArray = IntArray(capacity)
    var ends: IntArray = IntArray(capacity)
    var words: IntArray = IntArray(capacity)
    var texts: Array<String?> = arrayOfNulls(capacity)
    var size = 0

    /** The number of the word that is being added. */
    var word = 0

    /** Adds a token that stands for a part of a word. */
    fun add(id: Int, text: String, source: NormalizedText, from: Int, to: Int) {
        if (size == ids.size) grow()
        ids[size] = id
        texts[size] = text
        starts[size] = source.starts[from]
        ends[size] = source.ends[to - 1]
        words[size++] = word
    }

    /** Turns places in code points into places in a String, whose code points are [codes]. */
    fun placesIn(codes: IntArray) {
        val places = IntArray(codes.size + 1)
        for (i in codes.indices) places[i + 1] = places[i] + if (codes[i] < 0x10000) 1 else 2
        for (i in 0 until size) {
            starts[i] = places[starts[i]]
            ends[i] = places[ends[i]]
        }
    }

    private fun grow() {
        val more = 2 * size + 8
        ids = ids.copyOf(more)
        starts = starts.copyOf(more)
        ends = ends.copyOf(more)
        words = words.copyOf(more)
        texts = texts.copyOf(more)
    }
}
