package dev.edgebert.answers

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.sqrt

/** How alike two vectors are: their `cosine`, their product (`dot`), or a distance less than zero. */
internal fun similarity(a: FloatArray, b: FloatArray, kind: String): Double {
    val x = DoubleArray(a.size) { a[it].toDouble() }
    val y = DoubleArray(b.size) { b[it].toDouble() }
    return when (kind) {
        "cosine" -> dot(x, y) / max(sqrt(dot(x, x)) * sqrt(dot(y, y)), 1e-12)
        "dot" -> dot(x, y)
        "manhattan" -> -x.indices.sumOf { abs(x[it] - y[it]) }
        else -> DoubleArray(x.size) { x[it] - y[it] }.let { -sqrt(dot(it, it)) }
    }
}

private fun dot(x: DoubleArray, y: DoubleArray): Double = x.indices.sumOf { x[it] * y[it] }
