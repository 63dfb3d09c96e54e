package dev.edgebert.tokenizer

/** The pieces of a vocabulary by id: UTF-8 in one array, and a [Trie] that finds them. */
internal class Pieces {
    private var bytes = ByteArray(1 shl 12)
    private var used = 0
    private var starts = IntArray(1 shl 10) // of the pieces in the order that they came in
    private var placeOf = IntArray(1 shl 10) // by id: the place in `starts`, plus one; 0 where there is no such piece
    val trie = Trie()

    /** How many different pieces there are. */
    var count = 0
        private set

    /** Every id is below it. */
    var size = 0
        private set
    private var added = 0

    /** How many different ids they have. */
    val distinct: Int get() = placeOf.count { it != 0 }

    /** Adds a piece, and gives its bytes; one that is in it already gets the new id. */
    fun add(piece: String, id: Int): Int {
        val from = used
        val codes = codePoints(piece) { _, unit -> refuse("a piece has the lone surrogate ${codeName(unit)}") }
        append(codes)
        if (trie.put(bytes, from, used, id) == Trie.NONE) count++
        if (added + 1 >= starts.size) starts = starts.copyOf(2 * starts.size)
        starts[added++] = from
        starts[added] = used
        if (id >= placeOf.size) placeOf = placeOf.copyOf(maxOf(id + 1, 2 * placeOf.size))
        placeOf[id] = added
        size = maxOf(size, id + 1)
        return used - from
    }

    private fun append(codes: IntArray) {
        if (used + 4 * codes.size > bytes.size) bytes = bytes.copyOf(2 * bytes.size + 4 * codes.size)
        for (code in codes) {
            val size = utf8Size(code)
            for (k in 0 until size) bytes[used++] = utf8Byte(code, size, k).toByte()
        }
    }

    /** The piece of an id, null where there is none. */
    fun piece(id: Int): String? {
        val place = if (id in 0 until size) placeOf[id] else 0
        return if (place == 0) null else String(bytes, starts[place - 1], starts[place] - starts[place - 1], Charsets.UTF_8)
    }

    /** The id of a piece, [Trie.NONE] where there is none. */
    fun id(piece: String): Int {
        val codes = codePoints(piece) { _, _ -> return Trie.NONE }
        return trie.find(codes)
    }
}
