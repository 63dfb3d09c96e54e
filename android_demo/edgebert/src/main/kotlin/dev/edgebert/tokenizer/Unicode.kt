package dev.edgebert.tokenizer

/**
 * What the Rust library `tokenizers` knows of each code point: observed by tools/unicode_tables.py, which names the
 * places of the attributes. Nothing is asked of the platform, whose tables differ from phone to phone.
 */
internal object Unicode {
    const val LAST = 0x10FFFF

    private const val PAGE = 7 // bits of a code point within its page
    private val pageOf = ShortArray((LAST shr PAGE) + 1)
    private val pages: IntArray

    /** What lower case, canonical and compatibility decomposition make of single code points. */
    val lower: Mapping
    val canonical: Mapping
    val compatible: Mapping

    private val composedPairs: LongArray // first and second of each pair, ascending
    private val composed: IntArray

    init {
        val table = Table(checkNotNull(Unicode::class.java.getResourceAsStream("/dev/edgebert/tokenizer/unicode.bin")).use { it.readBytes() })
        pages = readPages(table)
        lower = readMapping(table)
        canonical = readMapping(table)
        compatible = readMapping(table)
        val count = table.next()
        composedPairs = LongArray(count)
        composed = IntArray(count)
        var first = 0
        for (i in 0 until count) {
            first += table.next()
            composedPairs[i] = pair(first, table.next())
            composed[i] = table.next()
        }
    }

    /** All attributes of a code point. */
    fun attributes(code: Int): Int = pages[(pageOf[code shr PAGE].toInt() shl PAGE) or (code and ((1 shl PAGE) - 1))]

    /** Of two bits: [KEPT], [DROPPED] or [SPACE]. */
    fun cleaned(code: Int): Int = attributes(code) and 3

    fun nmt(code: Int): Int = attributes(code) shr 2 and 3

    fun isChinese(code: Int): Boolean = attributes(code) and (1 shl 4) != 0

    fun isWhite(code: Int): Boolean = attributes(code) and (1 shl 5) != 0

    /** What `\w` means to Rust's regular expressions. */
    fun isWord(code: Int): Boolean = attributes(code) and (1 shl 6) != 0

    fun isPunctuation(code: Int): Boolean = attributes(code) and (1 shl 7) != 0

    fun isNumeric(code: Int): Boolean = attributes(code) and (1 shl 8) != 0

    /** What BertNormalizer strips. */
    fun isNonspacing(code: Int): Boolean = attributes(code) and (1 shl 9) != 0

    /** What StripAccents strips. */
    fun isCombining(code: Int): Boolean = attributes(code) and (1 shl 10) != 0

    fun hasLower(code: Int): Boolean = attributes(code) and (1 shl 11) != 0

    fun hasCanonical(code: Int): Boolean = attributes(code) and (1 shl 12) != 0

    fun hasCompatible(code: Int): Boolean = attributes(code) and (1 shl 13) != 0

    /** The rank of the canonical combining class, 0 for starters. */
    fun combiningClass(code: Int): Int = attributes(code) shr 14 and 63

    /** A class of grapheme cluster breaks, see Graphemes.kt. */
    fun grapheme(code: Int): Int = attributes(code) shr 20 and 15

    fun linksConjuncts(code: Int): Boolean = attributes(code) and (1 shl 24) != 0

    fun staysInConjunct(code: Int): Boolean = attributes(code) and (1 shl 25) != 0

    /** What `\p{L}` means to the library's regular expressions. */
    fun isLetter(code: Int): Boolean = attributes(code) and (1 shl 26) != 0

    /** What `\p{N}` means to them, of which [isNumeric] knows a few more or less. */
    fun isNumber(code: Int): Boolean = attributes(code) and (1 shl 27) != 0

    /** What two code points compose to, -1 where they do not. */
    fun compose(first: Int, second: Int): Int {
        val place = composedPairs.binarySearch(pair(first, second))
        return if (place < 0) -1 else composed[place]
    }

    private fun pair(first: Int, second: Int): Long = first.toLong() shl 32 or second.toLong()

    /** The pages one after the other; [pageOf] says which is whose, and pages of one set alone are there once. */
    private fun readPages(table: Table): IntArray {
        val sets = IntArray(table.next()) { table.next() }
        val size = 1 shl PAGE
        val found = ArrayList<IntArray>()
        val plain = HashMap<Int, Int>()
        var left = 0 // of the run that is being read
        var set = 0
        for (page in pageOf.indices) {
            val content = IntArray(size)
            val alone = left >= size
            for (i in 0 until size) {
                if (left == 0) {
                    left = table.next()
                    set = sets[table.next()]
                }
                content[i] = set
                left--
            }
            val known = if (alone) plain[set] else null
            pageOf[page] = (known ?: found.size).toShort()
            if (known != null) continue
            if (alone) plain[set] = found.size
            found += content
        }
        return IntArray(found.size shl PAGE) { found[it shr PAGE][it and size - 1] }
    }

    private fun readMapping(table: Table): Mapping {
        val count = table.next()
        val from = IntArray(count)
        val starts = IntArray(count + 1)
        var to = IntArray(4 * count)
        var code = 0
        var size = 0
        for (i in 0 until count) {
            code += table.next()
            from[i] = code
            val length = table.next()
            if (size + length > to.size) to = to.copyOf(2 * to.size + length)
            repeat(length) { to[size++] = table.next() }
            starts[i + 1] = size
        }
        return Mapping(from, starts, to.copyOf(size))
    }

    const val KEPT = 0
    const val DROPPED = 1
    const val SPACE = 2
}

/** From some code points to one or more: those of `from[i]` are `to[starts[i]]` up to `to[starts[i + 1]]`. */
internal class Mapping(private val from: IntArray, val starts: IntArray, val to: IntArray) {
    /** The place of a code point that is known to be in it. */
    fun place(code: Int): Int = from.binarySearch(code)
}

/** Numbers of seven bits a byte, the lowest first. */
private class Table(private val bytes: ByteArray) {
    private var at = 0

    fun next(): Int {
        var value = 0
        var shift = 0
        while (true) {
            val byte = bytes[at++].toInt()
            value = value or (byte and 0x7F shl shift)
            if (byte >= 0) return value
            shift += 7
        }
    }
}
