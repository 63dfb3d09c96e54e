package dev.edgebert.tokenizer

/**
 * RoBERTa's and ModernBERT's model, of words whose bytes are characters: of all pairs of neighbours in a word that can be merged
 * the one that is first in the list becomes one piece, again and again.
 *
 * @param unknown stands for a byte that is no piece; needed where there is one.
 * @param fuses whether such bytes in a row are one token.
 * @param ignoresMerges whether a word that is a piece is that piece, whatever merging would make of it.
 */
internal class Bpe(
    override val pieces: Pieces,
    private val merges: Merges,
    val unknown: String?,
    private val fuses: Boolean,
    private val ignoresMerges: Boolean,
) : Model {
    override val kind: String get() = "bpe"
    override val count: Int get() = pieces.count

    private val unknownId = unknown?.let { pieces.id(it) } ?: Trie.NONE

    init {
        val missing = ByteLevel.codes().count { pieces.trie.find(intArrayOf(it)) == Trie.NONE }
        if (missing > 0 && unknownId == Trie.NONE) refuse("its vocabulary lacks $missing of the 256 bytes, and has no unk_token for them")
    }

    override fun tokenize(word: Span, tokens: Tokens) {
        if (ignoresMerges) {
            val whole = pieces.trie.find(word.text.codes, word.from, word.to)
            if (whole != Trie.NONE) return add(word, word.from, word.to, whole, tokens)
        }
        val row = Row(word.to - word.from)
        for (i in word.from until word.to) {
            val id = pieces.trie.find(word.text.codes, i, i + 1)
            val fused = fuses && id == Trie.NONE && i > word.from && pieces.trie.find(word.text.codes, i - 1, i) == Trie.NONE
            if (!fused) row.append(if (id == Trie.NONE) unknownId else id, i)
        }
        merge(row)
        var at = 0
        while (at != Row.END) {
            val next = row.next[at]
            add(word, row.starts[at], if (next == Row.END) word.to else row.starts[next], row.ids[at], tokens)
            at = next
        }
    }

    private fun add(word: Span, from: Int, to: Int, id: Int, tokens: Tokens) =
        tokens.add(id, checkNotNull(pieces.piece(id)), word.text, from, to)

    /** In time that grows with the length, as the library does: what is to be merged waits in a queue. */
    private fun merge(row: Row) {
        if (row.size < 2) return
        val waiting = Queue(row.size)
        for (at in 0 until row.size - 1) waiting.offer(merges.rank(row.ids[at], row.ids[at + 1]), at)
        while (waiting.size > 0) {
            val first = waiting.take()
            val rank = (first ushr Int.SIZE_BITS).toInt()
            val at = first.toInt()
            val right = row.next[at]
            if (row.ids[at] == Row.GONE || right == Row.END) continue
            // What waited may be of neighbours that are others by now.
            val now = merges.rank(row.ids[at], row.ids[right])
            if (now == Merges.NONE || merges.made(now) != merges.made(rank)) continue
            row.join(at, merges.made(rank))
            val before = row.previous[at]
            val after = row.next[at]
            if (before != Row.END) waiting.offer(merges.rank(row.ids[before], row.ids[at]), before)
            if (after != Row.END) waiting.offer(merges.rank(row.ids[at], row.ids[after]), at)
        }
    }
}

/** The pieces of a word from left to right, each with the place where it begins and those of its neighbours. */
private class Row(capacity: Int) {
    val ids = IntArray(capacity)
    val starts = IntArray(capacity)
    val next = IntArray(capacity)
    val previous = IntArray(capacity)
    var size = 0
        private set

    fun append(id: Int, start: Int) {
        ids[size] = id
        starts[size] = start
        next[size] = END
        previous[size] = size - 1
        if (size > 0) next[size - 1] = size
        size++
    }

    /** Makes one piece of that at a place and the one after it. */
    fun join(at: Int, id: Int) {
        val right = next[at]
        ids[at] = id
        ids[right] = GONE
        next[at] = next[right]
        if (next[at] != END) previous[next[at]] = at
    }

    companion object {
        const val END = -1
        const val GONE = -1
    }
}

/** Merges by rank, and those of one rank by place: a heap of numbers, the rank in the upper half. */
private class Queue(capacity: Int) {
    private var heap = LongArray(capacity)
    var size = 0
        private set

    fun offer(rank: Int, at: Int) {
        if (rank == Merges.NONE) return
        if (size == heap.size) heap = heap.copyOf(2 * size)
        val added = rank.toLong() shl Int.SIZE_BITS or at.toLong()
        var hole = size++
        while (hole > 0 && heap[(hole - 1) / 2] > added) {
            heap[hole] = heap[(hole - 1) / 2]
            hole = (hole - 1) / 2
        }
        heap[hole] = added
    }

    fun take(): Long {
        val first = heap[0]
        val last = heap[--size]
        var hole = 0
        while (true) {
            var child = 2 * hole + 1
            if (child >= size) break
            if (child + 1 < size && heap[child + 1] < heap[child]) child++
            if (heap[child] >= last) break
            heap[hole] = heap[child]
            hole = child
        }
        heap[hole] = last
        return first
    }
}

/** From two ids to the rank of their merge, and from that to the id that it makes: an open-addressing table of 60 bits each. */
internal class Merges(count: Int) {
    private val made = IntArray(count)
    private val table: LongArray
    private val shift: Int
    private var ranks = 0

    init {
        val bits = maxOf(4, Int.SIZE_BITS - (count + count / 2).countLeadingZeroBits())
        table = LongArray(1 shl bits) { FREE }
        shift = Long.SIZE_BITS - bits
    }

    /** Adds the next one; of two with the same parts the later counts. */
    fun add(first: Int, second: Int, result: Int) {
        val pair = pair(first, second)
        val slot = slot(pair)
        table[slot] = pair shl BITS or ranks.toLong()
        made[ranks++] = result
    }

    /** The place in the list of what two ids make, [NONE] where they make nothing. */
    fun rank(first: Int, second: Int): Int {
        val found = table[slot(pair(first, second))]
        return if (found == FREE) NONE else (found and MASK).toInt()
    }

    fun made(rank: Int): Int = made[rank]

    private fun pair(first: Int, second: Int): Long = first.toLong() shl BITS or second.toLong()

    /** Where a pair is, or may be put. */
    private fun slot(pair: Long): Int {
        var slot = (pair * SCATTER ushr shift).toInt()
        while (table[slot] != FREE && table[slot] ushr BITS != pair) slot = slot + 1 and table.size - 1
        return slot
    }

    companion object {
        const val NONE = -1
        private const val FREE = -1L
        private const val BITS = 20 // of an id, and of a rank
        private const val MASK = (1L shl BITS) - 1
        private const val SCATTER = -0x61c8864680b583ebL // 2^64 over the golden ratio, odd
    }
}
