package dev.edgebert.answers

import dev.edgebert.EdgebertException
import dev.edgebert.Span
import dev.edgebert.bundle.Reading
import dev.edgebert.tokenizer.Encoding
import java.util.Locale
import kotlin.math.min

/* Where in a context an answer stands, as Python's `edgebert.answers.spans` finds it. */

/** What transformers puts in the place of logits that are not to count. */
private const val HIDDEN = -10000f

/** Of a window; those that are the same text, as whole words, count together. */
private const val CANDIDATES = 12

/** A place in the context, and the probability of all spans that are this text. */
private class Found(var score: Double, val start: Int, val end: Int)

private class Candidate(val score: Double, val first: Int, val last: Int)

/** The likeliest span of whole words over all windows. */
internal fun span(context: String, asked: Asked, reading: Reading, mayBeNone: Boolean): Span {
    val found = LinkedHashMap<String, Found>()
    var none = 1.0
    for ((window, outputs) in asked.encodings.zip(asked.outputs)) {
        val inside = BooleanArray(window.size) { window.sequences[it] == 1 }
        if (inside.none { it }) continue
        val first = chances(outputs.getValue("start_logits").values, inside, reading)
        val last = chances(outputs.getValue("end_logits").values, inside, reading)
        none = min(none, first[0] * last[0])
        for (candidate in candidates(first, last, inside, reading.longestAnswer ?: window.size)) {
            val start = word(window, candidate.first).first
            val end = word(window, candidate.last).second
            val spelt = context.substring(start, end.coerceAtLeast(start)).lowercase(Locale.ROOT)
            found.getOrPut(spelt) { Found(0.0, start, end) }.score += candidate.score
        }
    }
    val best = found.values.maxByOrNull { it.score }
        ?: throw EdgebertException("the context has no words to find an answer in: give it some.")
    if (mayBeNone && none > best.score) {
        return Span(context, "", 0, 0, none, none, asked.truncated, asked.tokenCount)
    }
    val answer = context.substring(best.start, best.end.coerceAtLeast(best.start))
    return Span(context, answer, best.start, best.end, best.score, none, asked.truncated, asked.tokenCount)
}

/** The likeliest spans of a window, the likeliest first, of equal ones the first. */
private fun candidates(first: DoubleArray, last: DoubleArray, inside: BooleanArray, most: Int): List<Candidate> {
    val found = ArrayList<Candidate>()
    for (i in inside.indices.filter { inside[it] }) {
        for (j in i until min(i + most, inside.size)) {
            if (inside[j] && first[i] * last[j] > 0) found.add(Candidate(first[i] * last[j], i, j))
        }
    }
    return found.sortedByDescending { it.score }.take(CANDIDATES)
}

/** Of each token, of all in the context and [CLS], which stands for no answer. */
private fun chances(logits: FloatArray, inside: BooleanArray, reading: Reading): DoubleArray =
    applied(reading.activation, FloatArray(inside.size) { if (inside[it] || it == 0) logits[it] else HIDDEN })

/** The first character of a token's word and the one after its last, as far as the window has the word. */
private fun word(window: Encoding, token: Int): Pair<Int, Int> {
    val number = window.words[token]
    if (number < 0) return window.starts[token] to window.ends[token]
    val same = window.ids.indices.filter { window.sequences[it] == window.sequences[token] && window.words[it] == number }
    return same.minOf { window.starts[it] } to same.maxOf { window.ends[it] }
}
