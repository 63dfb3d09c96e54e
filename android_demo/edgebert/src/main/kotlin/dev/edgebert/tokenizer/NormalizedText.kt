package dev.edgebert.tokenizer

/**
 * A text on its way to the vocabulary, as code points that know from where in the original they are.
 *
 * @property codes the code points as they are by now; the first [size] count.
 * @property starts for each, where in the original its source begins, in code points.
 * @property ends the place after its source.
 */
internal class NormalizedText(var codes: IntArray, var starts: IntArray, var ends: IntArray, var size: Int) {
    /** A part of it that can be changed by itself. */
    fun part(from: Int, to: Int): NormalizedText =
        NormalizedText(codes.copyOfRange(from, to), starts.copyOfRange(from, to), ends.copyOfRange(from, to), to - from)

    /** Keeps what [keep] says. */
    inline fun filter(keep: (Int) -> Boolean) {
        var kept = 0
        for (i in 0 until size) {
            if (!keep(codes[i])) continue
            codes[kept] = codes[i]
            starts[kept] = starts[i]
            ends[kept] = ends[i]
            kept++
        }
        size = kept
    }

    /**
     * Puts new code points in the place of all, each with the way it came about, as the Rust library counts: 1 is added
     * after the one before and shares its source, 0 takes the place of the next old one, and -n of that and n more.
     *
     * The counts of normalizers that reorder or drop are not always true to the text; sources follow them all the same.
     */
    fun transform(edits: Edits) {
        val newStarts = IntArray(edits.size)
        val newEnds = IntArray(edits.size)
        var old = 0
        for (i in 0 until edits.size) {
            val change = edits.changes[i]
            val source = if (change > 0) old - 1 else minOf(old, size - 1)
            if (source >= 0) {
                newStarts[i] = starts[source]
                newEnds[i] = ends[source]
            }
            if (change <= 0) old = minOf(old + 1 - change, size)
        }
        codes = edits.codes
        starts = newStarts
        ends = newEnds
        size = edits.size
    }

    /** Puts [added] before the text, from where its first code point is. */
    fun prepend(added: IntArray) {
        if (size == 0) return
        val count = added.size
        codes = IntArray(size + count) { if (it < count) added[it] else codes[it - count] }
        starts = IntArray(size + count) { starts[maxOf(it - count, 0)] }
        ends = IntArray(size + count) { ends[maxOf(it - count, 0)] }
        size += count
    }

    /** The text from one place to another. */
    fun string(from: Int, to: Int): String {
        val text = StringBuilder(to - from)
        for (i in from until to) text.appendCode(codes[i])
        return text.toString()
    }

    companion object {
        /** One that is still to be filled. */
        fun ofSize(size: Int): NormalizedText = NormalizedText(IntArray(size), IntArray(size), IntArray(size), size)

        fun of(original: IntArray, from: Int, to: Int): NormalizedText =
            NormalizedText(original.copyOfRange(from, to), IntArray(to - from) { from + it }, IntArray(to - from) { from + it + 1 }, to - from)
    }
}

/** New code points and how each came about, see [NormalizedText.transform]. */
internal class Edits(capacity: Int) {
    var codes: IntArray = IntArray(capacity)
        private set
    var changes: IntArray = IntArray(capacity)
        private set
    var size: Int = 0
        private set

    fun add(code: Int, change: Int) {
        if (size == codes.size) {
            codes = codes.copyOf(2 * size + 16)
            changes = changes.copyOf(2 * size + 16)
        }
        codes[size] = code
        changes[size++] = change
    }

    /** Adds to the count of the last one, where there is one. */
    fun addToLast(change: Int) {
        if (size > 0) changes[size - 1] += change
    }

    fun clear() {
        size = 0
    }

    /** Puts those at [places] from [at] on. */
    fun reorder(places: List<Int>, at: Int) {
        val newCodes = places.map { codes[it] }
        val newChanges = places.map { changes[it] }
        for (i in places.indices) {
            codes[at + i] = newCodes[i]
            changes[at + i] = newChanges[i]
        }
    }

    /** The last [count] are additions. */
    fun markAdded(count: Int) {
        for (i in size - count until size) changes[i] = 1
    }
}

/** A part of a text that was split: from one place to another, and its id where it is an added token. */
internal class Span(val text: NormalizedText, val from: Int, val to: Int, val id: Int = NONE) {
    companion object {
        const val NONE = -1
    }
}

/** A code point as Unicode writes it: U+0041. */
internal fun codeName(code: Int): String = buildString {
    append("U+")
    for (shift in (if (code > 0xFFFF) 20 else 12) downTo 0 step 4) append("0123456789ABCDEF"[code shr shift and 15])
}

private const val HIGH = 0xD800
private const val LOW = 0xDC00

/** Adds a code point to a text. */
internal fun StringBuilder.appendCode(code: Int) {
    if (code < 0x10000) {
        append(code.toChar())
    } else {
        append((HIGH + (code - 0x10000 shr 10)).toChar())
        append((LOW + (code - 0x10000 and 0x3FF)).toChar())
    }
}

/**
 * The code points of a text.
 *
 * @param lone is given the place, in code points, and the value of a surrogate that has no other half.
 */
internal inline fun codePoints(text: String, lone: (Int, Int) -> Nothing): IntArray {
    val codes = IntArray(text.length)
    var size = 0
    var i = 0
    while (i < text.length) {
        val unit = text[i++].code
        codes[size++] = when {
            unit and 0xF800 != 0xD800 -> unit
            unit < 0xDC00 && i < text.length && text[i].code and 0xFC00 == 0xDC00 ->
                0x10000 + (unit - 0xD800 shl 10) + (text[i++].code - 0xDC00)
            else -> lone(size - 1, unit)
        }
    }
    return if (size == codes.size) codes else codes.copyOf(size)
}
