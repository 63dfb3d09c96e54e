package dev.edgebert.tokenizer

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** How many bytes a code point has in UTF-8. */
internal fun utf8Size(code: Int): Int = if (code < 0x80) 1 else if (code < 0x800) 2 else if (code < 0x10000) 3 else 4

/** The byte at [place] of a code point that has [size] of them, 0 to 255. */
internal fun utf8Byte(code: Int, size: Int, place: Int): Int {
    if (size == 1) return code
    val bits = code shr 6 * (size - 1 - place)
    return if (place == 0) 0xF00 shr size and 0xFF or bits else 0x80 or (bits and 0x3F)
}

/** Code points in UTF-8. */
internal fun utf8(codes: IntArray): ByteArray {
    val bytes = ByteArray(codes.sumOf { utf8Size(it) })
    var place = 0
    for (code in codes) {
        val size = utf8Size(code)
        for (k in 0 until size) bytes[place++] = utf8Byte(code, size, k).toByte()
    }
    return bytes
}

/**
 * Text of bytes, with a U+FFFD for each row of them that begins a code point and does not end it, and for each that begins none:
 * as Rust has it, and platforms have it in several ways.
 */
internal fun lossyUtf8(bytes: ByteArray): String {
    val text = StringBuilder(bytes.size)
    var at = 0
    while (at < bytes.size) {
        val first = bytes[at].toInt() and 0xFF
        val size = if (first < 0x80) 1 else if (first in 0xC2..0xDF) 2 else if (first in 0xE0..0xEF) 3 else if (first in 0xF0..0xF4) 4 else 0
        var code = if (size < 2) first else first and (0x7F shr size)
        var found = 1
        while (found < size && at + found < bytes.size) {
            val byte = bytes[at + found].toInt() and 0xFF
            if (byte !in followers(first, found)) break
            code = code shl 6 or (byte and 0x3F)
            found++
        }
        if (found == size) text.appendCode(code) else text.append('\uFFFD')
        at += found
    }
    return text.toString()
}

/** What may follow a first byte: the one after it is kept from surrogates, from what is shorter, and from what is too large. */
private fun followers(first: Int, place: Int): IntRange = when {
    place > 1 -> 0x80..0xBF
    first == 0xE0 -> 0xA0..0xBF
    first == 0xED -> 0x80..0x9F
    first == 0xF0 -> 0x90..0xBF
    first == 0xF4 -> 0x80..0x8F
    else -> 0x80..0xBF
}

internal fun isUtf8(bytes: ByteArray): Boolean = decodedUtf8(bytes) != null

/** null where it is not UTF-8. */
internal fun decodedUtf8(bytes: ByteArray): String? = try {
    Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
} catch (_: CharacterCodingException) {
    null
}
