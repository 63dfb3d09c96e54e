package dev.edgebert.tokenizer

/** Changes a text in place before it is split. */
internal fun interface Normalizer {
    fun normalize(text: NormalizedText)
}

/** BERT's: cleans, parts Chinese characters, strips accents and makes lower case, as it is told. */
internal class BertNormalizer(
    private val clean: Boolean,
    private val chinese: Boolean,
    private val accents: Boolean,
    private val lower: Boolean,
) : Normalizer {
    override fun normalize(text: NormalizedText) {
        if (clean) drop(text, Unicode::cleaned)
        if (chinese) partChinese(text)
        if (accents) {
            decompose(text, compatible = false)
            text.filter { it < FIRST_MARK || !Unicode.isNonspacing(it) }
        }
        if (lower) lowercase(text)
    }

    private fun partChinese(text: NormalizedText) {
        if (!text.any { it >= FIRST_CHINESE && Unicode.isChinese(it) }) return
        val edits = Edits(text.size + 32)
        for (i in 0 until text.size) {
            val code = text.codes[i]
            if (Unicode.isChinese(code)) {
                edits.add(' '.code, 0)
                edits.add(code, 1)
                edits.add(' '.code, 1)
            } else {
                edits.add(code, 0)
            }
        }
        text.transform(edits)
    }
}

/** Drops some code points and makes spaces of others. */
internal inline fun drop(text: NormalizedText, what: (Int) -> Int) {
    var spaces = false
    text.filter { code ->
        val it = what(code)
        spaces = spaces || it == Unicode.SPACE
        it != Unicode.DROPPED
    }
    if (!spaces) return
    for (i in 0 until text.size) if (what(text.codes[i]) == Unicode.SPACE) text.codes[i] = ' '.code
}

/** Each code point by itself: a Σ is σ at the end of a word too. */
internal fun lowercase(text: NormalizedText) {
    var longer = false
    for (i in 0 until text.size) {
        val code = text.codes[i]
        if (code < 0x80) {
            if (code in 'A'.code..'Z'.code) text.codes[i] = code + 32
        } else if (Unicode.hasLower(code)) {
            val place = Unicode.lower.place(code)
            val start = Unicode.lower.starts[place]
            if (Unicode.lower.starts[place + 1] == start + 1) text.codes[i] = Unicode.lower.to[start] else longer = true
        }
    }
    if (!longer) return
    val edits = Edits(text.size + 16)
    for (i in 0 until text.size) edits.addAll(text.codes[i], Unicode.lower, Unicode.hasLower(text.codes[i]))
    text.transform(edits)
}

private fun Edits.addAll(code: Int, mapping: Mapping, has: Boolean) {
    if (!has) return add(code, 0)
    val place = mapping.place(code)
    for (i in mapping.starts[place] until mapping.starts[place + 1]) add(mapping.to[i], if (i == mapping.starts[place]) 0 else 1)
}

/** NFD, or NFKD where [compatible]. */
internal fun decompose(text: NormalizedText, compatible: Boolean) {
    // Below these nothing decomposes and nothing combines.
    val first = if (compatible) 0xA0 else 0xC0
    if (text.any { it >= first }) text.transform(decomposed(text, compatible))
}

/** NFC, or NFKC where [compatible]. */
internal fun compose(text: NormalizedText, compatible: Boolean) {
    // Below these all is composed already.
    val first = if (compatible) 0xA0 else FIRST_MARK
    if (text.any { it >= first }) text.transform(composed(decomposed(text, compatible)))
}

private fun decomposed(text: NormalizedText, compatible: Boolean): Edits {
    val edits = Edits(text.size + text.size / 4 + 8)
    for (i in 0 until text.size) {
        val code = text.codes[i]
        when {
            code in Hangul.SYLLABLES -> Hangul.decompose(code, edits)
            compatible && Unicode.hasCompatible(code) -> edits.addAll(code, Unicode.compatible, true)
            else -> edits.addAll(code, Unicode.canonical, Unicode.hasCanonical(code))
        }
    }
    sortMarks(edits)
    return edits
}

/** Puts marks between two starters in the order of their classes; equal ones stay as they are. */
private fun sortMarks(edits: Edits) {
    var from = 0
    while (from < edits.size) {
        var to = from
        var sorted = true
        var last = 0
        while (to < edits.size) {
            val rank = rank(edits.codes[to])
            if (rank == 0) break
            sorted = sorted && rank >= last
            last = rank
            to++
        }
        if (!sorted) edits.reorder((from until to).sortedBy { rank(edits.codes[it]) }, from)
        from = to + 1
    }
}

private fun rank(code: Int): Int = if (code < FIRST_MARK) 0 else Unicode.combiningClass(code)

/** Joins each starter with the marks after it that it composes with, where none of a class as high stands between. */
private fun composed(parts: Edits): Edits {
    val done = Edits(parts.size)
    val waiting = Edits(8)
    var starter = -1
    var starterChange = 0
    var last = -1 // the class of the last mark that waits, -1 where none does
    for (i in 0 until parts.size) {
        val code = parts.codes[i]
        val change = parts.changes[i]
        val rank = rank(code)
        if (starter < 0 && rank != 0) {
            done.add(code, change)
            continue
        }
        val whole = if (starter < 0 || last >= rank || code < FIRST_MARK) -1 else pair(starter, code)
        if (whole >= 0) {
            starter = whole
            starterChange += change - 1
        } else if (rank == 0) {
            if (starter >= 0) done.add(starter, starterChange)
            done.take(waiting)
            starter = code
            starterChange = change
            last = -1
        } else {
            waiting.add(code, change)
            last = rank
        }
    }
    if (starter >= 0) done.add(starter, starterChange)
    done.take(waiting)
    return done
}

private fun pair(first: Int, second: Int): Int {
    val syllable = Hangul.compose(first, second)
    return if (syllable >= 0) syllable else Unicode.compose(first, second)
}

/** The syllables of Hangul, which compose by rule: Unicode, section 3.12. */
private object Hangul {
    private const val SYLLABLE = 0xAC00
    private const val LEADING = 0x1100
    private const val VOWEL = 0x1161
    private const val TRAILING = 0x11A7
    private const val VOWELS = 21
    private const val TRAILINGS = 28
    val SYLLABLES = SYLLABLE until SYLLABLE + 19 * VOWELS * TRAILINGS

    fun decompose(code: Int, edits: Edits) {
        val index = code - SYLLABLE
        edits.add(LEADING + index / (VOWELS * TRAILINGS), 0)
        edits.add(VOWEL + index % (VOWELS * TRAILINGS) / TRAILINGS, 1)
        if (index % TRAILINGS > 0) edits.add(TRAILING + index % TRAILINGS, 1)
    }

    fun compose(first: Int, second: Int): Int = when {
        first in LEADING until LEADING + 19 && second in VOWEL until VOWEL + VOWELS ->
            SYLLABLE + ((first - LEADING) * VOWELS + second - VOWEL) * TRAILINGS
        first in SYLLABLES && (first - SYLLABLE) % TRAILINGS == 0 && second in TRAILING + 1 until TRAILING + TRAILINGS ->
            first + second - TRAILING
        else -> -1
    }
}

/** Strips white space. */
internal class Strip(private val left: Boolean, private val right: Boolean) : Normalizer {
    override fun normalize(text: NormalizedText) {
        var from = 0
        var to = text.size
        if (left) while (from < to && Unicode.isWhite(text.codes[from])) from++
        if (right) while (to > from && Unicode.isWhite(text.codes[to - 1])) to--
        if (to - from == text.size) return
        var place = 0
        text.filter { place++ in from until to }
    }
}

/** Puts [content] where [pattern] matches, from where the last of the match is. */
internal class Replace(private val pattern: Pattern, private val content: IntArray) : Normalizer {
    override fun normalize(text: NormalizedText) {
        val codes = text.codes
        var from = 0
        var kept = 0
        while (from < text.size) {
            val length = pattern.match(codes, from, text.size)
            if (length == 0) {
                codes[kept] = codes[from]
                text.starts[kept] = text.starts[from]
                text.ends[kept++] = text.ends[from++]
            } else {
                // Never longer than what it replaces: the place before is done with.
                val last = from + length - 1
                val start = text.starts[last]
                val end = text.ends[last]
                for (code in content) {
                    codes[kept] = code
                    text.starts[kept] = start
                    text.ends[kept++] = end
                }
                from += length
            }
        }
        text.size = kept
    }

    /** The same on a token that is decoded. */
    fun replaced(token: String): String {
        val codes = codePoints(token) { _, _ -> error("a token has no lone surrogates") }
        val text = NormalizedText.of(codes, 0, codes.size)
        normalize(text)
        return text.string(0, text.size)
    }
}

/** What a Replace looks for. */
internal fun interface Pattern {
    /** How many code points match from a place on; 0 where it does not match. */
    fun match(codes: IntArray, from: Int, to: Int): Int

    companion object {
        fun text(sought: IntArray): Pattern = Pattern { codes, from, to ->
            if (to - from >= sought.size && sought.indices.all { codes[from + it] == sought[it] }) sought.size else 0
        }

        /** As many as there are of [is], and at least [least] of them. */
        fun run(least: Int, matches: (Int) -> Boolean): Pattern = Pattern { codes, from, to ->
            var end = from
            while (end < to && matches(codes[end])) end++
            if (end - from >= least) end - from else 0
        }

        /** A run, or a single one of others. */
        fun runOr(least: Int, matches: (Int) -> Boolean, single: (Int) -> Boolean): Pattern {
            val run = run(least, matches)
            return Pattern { codes, from, to ->
                val length = run.match(codes, from, to)
                if (length == 0 && single(codes[from])) 1 else length
            }
        }
    }
}

internal inline fun NormalizedText.any(matches: (Int) -> Boolean): Boolean {
    for (i in 0 until size) if (matches(codes[i])) return true
    return false
}

private fun Edits.take(other: Edits) {
    for (i in 0 until other.size) add(other.codes[i], other.changes[i])
    other.clear()
}

private const val FIRST_MARK = 0x300 // the first code point of a combining class; what is below never combines
private const val FIRST_CHINESE = 0x3400
