package dev.edgebert.tokenizer

import java.io.ByteArrayOutputStream

/** Makes text of tokens, step by step: what the last step leaves is put together. */
internal fun interface Decoder {
    fun decode(tokens: List<String>): List<String>
}

/** Joins the pieces of words, and puts spaces between words. */
internal class WordPieceDecoder(private val prefix: String, private val cleanup: Boolean) : Decoder {
    override fun decode(tokens: List<String>): List<String> = tokens.mapIndexed { i, token ->
        val joined = if (i == 0) token else if (token.startsWith(prefix)) token.substring(prefix.length) else " $token"
        if (cleanup) cleaned(joined) else joined
    }

    private fun cleaned(text: String): String {
        if (' ' !in text) return text
        return TIDIED.fold(text) { tidied, (from, to) -> tidied.replace(from, to) }
    }

    private companion object {
        // What the Rust library tidies, in its order.
        val TIDIED = listOf(
            " ." to ".", " ?" to "?", " !" to "!", " ," to ",", " ' " to "'", " n't" to "n't", " 'm" to "'m",
            " do not" to " don't", " 's" to "'s", " 've" to "'ve", " 're" to "'re",
        )
    }
}

/** Makes spaces of SentencePiece's marks; those of the first token go where one was put before the text. */
internal class MetaspaceDecoder(private val mark: String, private val prepended: Boolean) : Decoder {
    override fun decode(tokens: List<String>): List<String> =
        tokens.mapIndexed { i, token -> token.replace(mark, if (i == 0 && prepended) "" else " ") }
}

/** Makes bytes of the characters that stand for them, and text of all bytes together: U+FFFD where they are not UTF-8. */
internal object ByteLevelDecoder : Decoder {
    override fun decode(tokens: List<String>): List<String> {
        val bytes = ByteArrayOutputStream()
        for (token in tokens) {
            // A token with any other character, as an added one may have, is text already.
            val own = if (token.all { ByteLevel.byte(it.code) >= 0 }) ByteArray(token.length) { ByteLevel.byte(token[it].code).toByte() } else token.toByteArray()
            bytes.write(own, 0, own.size)
        }
        return listOf(lossyUtf8(bytes.toByteArray()))
    }
}

/** Puts bytes that are tokens together; U+FFFD for each of them where they are not UTF-8. */
internal object ByteFallback : Decoder {
    override fun decode(tokens: List<String>): List<String> {
        val decoded = ArrayList<String>()
        val bytes = ArrayList<Byte>()
        for (token in tokens) {
            val byte = byte(token)
            if (byte != null) {
                bytes += byte
            } else {
                flush(bytes, decoded)
                decoded += token
            }
        }
        flush(bytes, decoded)
        return decoded
    }

    private fun flush(bytes: MutableList<Byte>, decoded: MutableList<String>) {
        if (bytes.isEmpty()) return
        val text = decodedUtf8(bytes.toByteArray())
        if (text != null) decoded += text else repeat(bytes.size) { decoded += "\uFFFD" }
        bytes.clear()
    }

    /** Of <0x41>; Rust reads <0x+4> too. */
    private fun byte(token: String): Byte? {
        if (token.length != 6 || !token.startsWith("<0x") || token[5] != '>') return null
        val high = if (token[3] == '+') 0 else digit(token[3])
        val low = digit(token[4])
        return if (high < 0 || low < 0) null else (16 * high + low).toByte()
    }

    private fun digit(unit: Char): Int = when (unit) {
        in '0'..'9' -> unit - '0'
        in 'a'..'f' -> unit - 'a' + 10
        in 'A'..'F' -> unit - 'A' + 10
        else -> -1
    }
}
