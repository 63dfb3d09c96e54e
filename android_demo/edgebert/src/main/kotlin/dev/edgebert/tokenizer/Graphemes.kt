package dev.edgebert.tokenizer

/**
 * Where a user-perceived character ends: the extended grapheme clusters of Unicode Standard Annex 29, by the classes that
 * the Rust library has. Regional indicators are left out: pairs of them are too long to be looked up whole.
 */
internal object Graphemes {
    /** The place after the cluster that begins at [from]. */
    fun end(codes: IntArray, from: Int, to: Int): Int {
        var place = from + 1
        // Printable ASCII before printable ASCII, the usual case.
        if (place < to && codes[from] in 0x20..0x7E && codes[place] in 0x20..0x7E) return place
        while (place < to && joined(codes, from, place)) place++
        return place
    }

    /** Whether the code point at [place] goes on with the cluster that begins at [from]. */
    private fun joined(codes: IntArray, from: Int, place: Int): Boolean {
        val before = Unicode.grapheme(codes[place - 1])
        val after = Unicode.grapheme(codes[place])
        return when {
            before == CR && after == LF -> true
            before in CR..CONTROL || after in CR..CONTROL -> false
            before == L && (after == L || after == V || after == LV || after == LVT) -> true
            (before == LV || before == V) && (after == V || after == T) -> true
            (before == LVT || before == T) && after == T -> true
            after == EXTEND || after == ZWJ || after == SPACING || before == PREPEND -> true
            after == CONSONANT -> conjunct(codes, from, place)
            before == ZWJ && after == PICTOGRAPHIC -> emoji(codes, from, place)
            else -> false
        }
    }

    /** Whether a consonant and a linker stand before, and nothing between but what conjuncts may hold. */
    private fun conjunct(codes: IntArray, from: Int, place: Int): Boolean {
        var linked = false
        var i = place - 1
        while (i >= from && (Unicode.linksConjuncts(codes[i]) || Unicode.staysInConjunct(codes[i]))) {
            linked = linked || Unicode.linksConjuncts(codes[i])
            i--
        }
        return linked && i >= from && Unicode.grapheme(codes[i]) == CONSONANT
    }

    /** Whether a picture, and what extends it, stand before the joiner. */
    private fun emoji(codes: IntArray, from: Int, place: Int): Boolean {
        var i = place - 2
        while (i >= from && Unicode.grapheme(codes[i]) == EXTEND) i--
        return i >= from && Unicode.grapheme(codes[i]) == PICTOGRAPHIC
    }

    // The places in GRAPHEMES of tools/unicode_tables.py.
    private const val CR = 1
    private const val LF = 2
    private const val CONTROL = 3
    private const val L = 4
    private const val V = 5
    private const val T = 6
    private const val LV = 7
    private const val LVT = 8
    private const val EXTEND = 9
    private const val ZWJ = 10
    private const val SPACING = 11
    private const val PREPEND = 12
    private const val CONSONANT = 13
    private const val PICTOGRAPHIC = 14
}
