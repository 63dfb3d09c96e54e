package dev.edgebert.answers

import kotlin.math.exp
import kotlin.math.tanh

internal const val SOFTMAX = "softmax"

/** Scores of logits, in double precision as in Python's `edgebert.answers.reading.applied`. */
internal fun applied(activation: String, logits: FloatArray): DoubleArray {
    val x = DoubleArray(logits.size) { logits[it].toDouble() }
    return when (activation) {
        SOFTMAX -> softmax(x)
        "sigmoid" -> DoubleArray(x.size) { 1 / (1 + exp(-x[it])) }
        "tanh" -> DoubleArray(x.size) { tanh(x[it]) }
        else -> x
    }
}

private fun softmax(x: DoubleArray): DoubleArray {
    val most = x.max()
    val shifted = DoubleArray(x.size) { exp(x[it] - most) }
    val sum = shifted.sum()
    return DoubleArray(x.size) { shifted[it] / sum }
}

/** Places of scores, the highest first; of equal ones the first. */
internal fun ranked(scores: DoubleArray): List<Int> = scores.indices.sortedByDescending { scores[it] }

/** The place of the highest score; of equal ones the first. */
internal fun best(scores: DoubleArray): Int = scores.indices.maxByOrNull { scores[it] } ?: 0
