package dev.edgebert.tokenizer

/**
 * SentencePiece's normalization table: a u32 size, a double-array trie of that many bytes (darts-clone), then replacements
 * that each end in NUL. A unit of the trie holds its label in bits 0 to 7, whether it has a leaf in bit 8, and the offset to
 * its children; bit 31 marks a leaf, whose other bits point into the replacements.
 *
 * A whole grapheme cluster of under six bytes is looked up first, by the shortest key that it begins with, and what follows
 * the key goes with it; else each character by itself. So has it the Rust library, after SentencePiece.
 */
internal class Precompiled private constructor(private val units: IntArray, private val texts: ByteArray) : Normalizer {
    override fun normalize(text: NormalizedText) {
        val edits = Edits(text.size + 16)
        var changed = false
        var from = 0
        while (from < text.size) {
            val end = Graphemes.end(text.codes, from, text.size)
            val whole = if (fits(text.codes, from, end)) find(text.codes, from, end) else NONE
            if (whole != NONE) {
                changed = true
                replace(edits, whole, end - from)
            } else {
                for (i in from until end) {
                    val found = if (end == from + 1) NONE else find(text.codes, i, i + 1)
                    if (found == NONE) edits.add(text.codes[i], 0) else replace(edits, found, 1)
                    changed = changed || found != NONE
                }
            }
            from = end
        }
        if (changed) text.transform(edits)
    }

    private fun fits(codes: IntArray, from: Int, end: Int): Boolean {
        var bytes = 0
        for (i in from until end) bytes += utf8Size(codes[i])
        return bytes < WHOLE
    }

    /** Puts a replacement in the place of [old] code points. */
    private fun replace(edits: Edits, start: Int, old: Int) {
        val before = edits.size
        var i = start
        while (texts[i] != NUL) {
            val lead = texts[i].toInt() and 0xFF
            val more = if (lead < 0x80) 0 else if (lead < 0xE0) 1 else if (lead < 0xF0) 2 else 3
            var code = if (more == 0) lead else lead and (0x3F shr more)
            for (k in 1..more) code = code shl 6 or (texts[i + k].toInt() and 0x3F)
            edits.add(code, 0)
            i += more + 1
        }
        val added = edits.size - before - old
        if (added > 0) edits.markAdded(added) else edits.addToLast(added)
    }

    /** Where the replacement of the shortest key stands with which a text begins, [NONE] where there is none. */
    private fun find(codes: IntArray, from: Int, end: Int): Int {
        var node = children(0)
        for (i in from until end) {
            val code = codes[i]
            val size = utf8Size(code)
            for (k in 0 until size) {
                val byte = utf8Byte(code, size, k)
                if (byte == 0) return NONE
                node = node xor byte
                val unit = units[node]
                if (unit and LABEL != byte) return NONE
                node = children(node)
                if (unit and HAS_LEAF != 0) return units[node] and VALUE
            }
        }
        return NONE
    }

    private fun children(node: Int): Int = childrenOf(node, units[node])

    companion object {
        const val NONE = -1
        private const val WHOLE = 6
        private const val NUL: Byte = 0
        private const val HAS_LEAF = 1 shl 8
        private const val VALUE = Int.MAX_VALUE
        private const val LABEL = Int.MIN_VALUE or 0xFF

        /** Bytes that a table may put in the place of a character. */
        private const val EXPANSION = 256

        private fun childrenOf(node: Int, unit: Int): Int = node xor (unit ushr 10 shl (unit and 512 shr 6))

        /** Reads a table, and sees that it leads nowhere outside of itself. */
        fun of(data: ByteArray): Precompiled {
            val size = if (data.size < 4) 0L else word(data, 0).toLong() and 0xFFFFFFFFL
            if (size == 0L || size % 4 != 0L || 4 + size >= data.size) {
                refuse("its normalization table says $size bytes and has ${maxOf(data.size - 4, 0)}")
            }
            val units = IntArray((size / 4).toInt()) { word(data, 4 + 4 * it) }
            val texts = data.copyOfRange(4 + size.toInt(), data.size)
            checkUnits(units, texts)
            checkTexts(texts)
            return Precompiled(units, texts)
        }

        private fun checkUnits(units: IntArray, texts: ByteArray) {
            for (i in units.indices) {
                if (units[i] < 0 && i > 0) continue // a leaf, which the first is not
                val children = childrenOf(i, units[i])
                if (children < 0 || children or 255 >= units.size) refuse("its normalization table points outside itself")
                if (units[i] and HAS_LEAF == 0) continue
                val start = units[children] and VALUE
                if (start >= texts.size || start > 0 && texts[start - 1] != NUL) {
                    refuse("its normalization table points outside its replacements")
                }
            }
        }

        private fun checkTexts(texts: ByteArray) {
            if (texts.last() != NUL) refuse("its normalization table points outside its replacements")
            var length = 0
            for (byte in texts) {
                length = if (byte == NUL) 0 else length + 1
                if (length > EXPANSION) refuse("its normalization table replaces a character by more than $EXPANSION bytes")
            }
            if (!isUtf8(texts)) refuse("its normalization table is not UTF-8")
        }

        private fun word(data: ByteArray, at: Int): Int =
            (0..3).fold(0) { value, i -> value or (data[at + i].toInt() and 0xFF shl 8 * i) }
    }
}
