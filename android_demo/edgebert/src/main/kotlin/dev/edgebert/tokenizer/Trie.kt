package dev.edgebert.tokenizer

/**
 * Texts as a tree of their UTF-8 bytes, with a value at the end of each. All steps lie in one open-addressing table, each as
 * the node before and the byte, then the node after.
 */
internal class Trie {
    private var table = IntArray(2 shl FIRST_BITS)
    private var shift = Int.SIZE_BITS - FIRST_BITS
    private var values = IntArray(1 shl FIRST_BITS).apply { fill(NONE) }
    private var nodes = 1

    /** The value at a node, [NONE] where no text ends. */
    fun value(node: Int): Int = values[node]

    /** The node that a byte, 0 to 255, leads to; [NONE] where none. */
    fun step(node: Int, byte: Int): Int {
        val key = node shl 8 or byte
        var slot = slot(key)
        val mask = table.size - 1
        while (true) {
            val next = table[slot + 1]
            if (next == 0) return NONE
            if (table[slot] == key) return next
            slot = slot + 2 and mask
        }
    }

    /** The node that a whole code point leads to. */
    fun stepCode(node: Int, code: Int): Int {
        if (code < 0x80) return step(node, code)
        val size = utf8Size(code)
        var at = node
        for (k in 0 until size) {
            at = step(at, utf8Byte(code, size, k))
            if (at == NONE) return NONE
        }
        return at
    }

    /** The node at the end of some code points. */
    fun walk(codes: IntArray, from: Int = 0, to: Int = codes.size): Int {
        var node = ROOT
        for (i in from until to) {
            node = stepCode(node, codes[i])
            if (node == NONE) return NONE
        }
        return node
    }

    /** The value of a text, [NONE] where it is not in it. */
    fun find(codes: IntArray, from: Int = 0, to: Int = codes.size): Int {
        val node = walk(codes, from, to)
        return if (node == NONE) NONE else values[node]
    }

    /** Sets the value of a text, and gives the one that it had, [NONE] where it had none. */
    fun put(bytes: ByteArray, from: Int, to: Int, value: Int): Int {
        var node = ROOT
        for (i in from until to) {
            val byte = bytes[i].toInt() and 0xFF
            val next = step(node, byte)
            node = if (next == NONE) add(node, byte) else next
        }
        return values[node].also { values[node] = value }
    }

    private fun add(node: Int, byte: Int): Int {
        if (nodes == MOST) refuse("its texts take more than $MOST nodes of a tree")
        if (nodes >= table.size / 2 * 3 / 4) grow()
        if (nodes == values.size) values = values.copyOf(2 * nodes).apply { fill(NONE, nodes, size) }
        insert(node shl 8 or byte, nodes)
        return nodes++
    }

    private fun insert(key: Int, next: Int) {
        var slot = slot(key)
        while (table[slot + 1] != 0) slot = slot + 2 and table.size - 1
        table[slot] = key
        table[slot + 1] = next
    }

    private fun grow() {
        val old = table
        table = IntArray(2 * old.size)
        shift--
        for (slot in old.indices step 2) if (old[slot + 1] != 0) insert(old[slot], old[slot + 1])
    }

    private fun slot(key: Int): Int = key * SCATTER ushr shift shl 1

    companion object {
        const val ROOT = 0
        const val NONE = -1
        private const val FIRST_BITS = 12
        private const val MOST = 1 shl 22 // of a node and a byte one Int is made
        private const val SCATTER = -0x61c88647 // 2^32 over the golden ratio, odd
    }
}
