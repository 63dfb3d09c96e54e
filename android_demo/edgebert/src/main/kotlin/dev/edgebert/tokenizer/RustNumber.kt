package dev.edgebert.tokenizer

/**
 * A number of JSON as serde_json reads it where it is not asked to be exact, as the Rust library does not ask: the digits as
 * one whole number, times or over a power of ten, which is off in the last place for one in ten. The scores have to be off
 * alike.
 *
 * @return null where it is beyond what a float64 holds.
 */
internal fun rustDouble(text: String): Double? {
    val negative = text.startsWith('-')
    var place = if (negative) 1 else 0
    var digits = 0L // unsigned
    var exponent = 0
    var full = false // the digits no longer fit
    var fraction = false
    while (place < text.length) {
        val unit = text[place++]
        if (unit == '.') {
            fraction = true
            full = false
            continue
        }
        if (unit == 'e' || unit == 'E') {
            exponent += text.substring(place).toIntOrNull() ?: return null
            break
        }
        val digit = unit - '0'
        if (full || overflows(digits, digit)) {
            full = true
            if (!fraction) exponent++
            continue
        }
        digits = 10 * digits + digit
        if (fraction) exponent--
    }
    val value = scaled(unsigned(digits), exponent) ?: return null
    return if (negative) -value else value
}

/** Whether another digit is too much for 64 bits. */
private fun overflows(digits: Long, digit: Int): Boolean {
    val most = (ULong.MAX_VALUE / 10u).toLong() // compared as signed: Android 24 has no other comparison
    return digits !in 0..most || digits == most && digit > (ULong.MAX_VALUE % 10u).toInt()
}

private fun unsigned(digits: Long): Double = digits.toULong().toDouble()

private fun scaled(digits: Double, power: Int): Double? {
    var value = digits
    var exponent = power
    while (exponent < -MOST) {
        if (value == 0.0) return value
        value /= POWERS[MOST]
        exponent += MOST
    }
    if (exponent > MOST) return if (value == 0.0) value else null
    value = if (exponent >= 0) value * POWERS[exponent] else value / POWERS[-exponent]
    return if (value.isInfinite()) null else value
}

private const val MOST = 308
private val POWERS = DoubleArray(MOST + 1) { "1e$it".toDouble() }
