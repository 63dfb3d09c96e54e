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

internal fun isUtf8(bytes: ByteArray): Boolean = decodedUtf8(bytes) != null

/** null where it is not UTF-8. */
internal fun decodedUtf8(bytes: ByteArray): String? = try {
    Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
} catch (_: CharacterCodingException) {
    null
}
