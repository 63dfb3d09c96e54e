package dev.edgebert.tokenizer

import java.io.BufferedInputStream
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.io.OutputStream
import java.util.zip.CRC32
import java.util.zip.CheckedOutputStream

/**
 * Holds this tokenizer against what Python's made of the same texts; run by tests/android_demo/test_tokenizer.py.
 *
 * Arguments: a tokenizer.json, and a file of rows, all numbers big-endian: what is asked (0 for one text, 1 for a pair, 2 for
 * windows), one int each for the length to cut to (-1 for none) and the stride, the texts (an int of bytes, then UTF-8), and
 * the CRC-32 of the answer: see [write]. Prints the number of each row that differs and the ids that came out here, then how
 * many there were.
 */
fun main(arguments: Array<String>) {
    val tokenizer = Tokenizer.read(File(arguments[0]).inputStream())
    var count = 0
    var differ = 0
    DataInputStream(BufferedInputStream(File(arguments[1]).inputStream(), 1 shl 16)).use { rows ->
        while (true) {
            val kind = rows.read()
            if (kind < 0) break
            val length = rows.readInt()
            val stride = rows.readInt()
            val text = rows.text()
            val pair = if (kind == 0) null else rows.text()
            val found = if (kind == 2) {
                tokenizer.windows(text, checkNotNull(pair), length, stride)
            } else {
                listOf(tokenizer.encode(text, pair, length.takeIf { it >= 0 }))
            }
            if (checksum(tokenizer, found, text, pair) != rows.readInt()) {
                println("row $count: ${found.map { shown(it) }}")
                differ++
            }
            count++
        }
    }
    println("$count rows, $differ differ")
}

private fun DataInputStream.text(): String = String(ByteArray(readInt()).also { readFully(it) }, Charsets.UTF_8)

private fun shown(encoding: Encoding): String = buildString {
    for (i in 0 until encoding.size) {
        append("${encoding.ids[i]}@${encoding.starts[i]}-${encoding.ends[i]}/${encoding.words[i]}:${encoding.tokens[i]} ")
    }
}

private fun checksum(tokenizer: Tokenizer, encodings: List<Encoding>, text: String, pair: String?): Int {
    val crc = CRC32()
    val out = DataOutputStream(CheckedOutputStream(Nowhere, crc))
    val places = listOf(codePlaces(text), codePlaces(pair.orEmpty()))
    for (encoding in encodings) write(encoding, places, out)
    for (skip in listOf(false, true)) out.write(tokenizer.decode(encodings[0].ids, skip).toByteArray())
    return crc.value.toInt()
}

/** All that is known of each token, places in code points; then its spelling and a NUL. */
private fun write(encoding: Encoding, places: List<IntArray>, out: DataOutputStream) {
    for (i in 0 until encoding.size) {
        val own = places[maxOf(encoding.sequences[i], 0)]
        out.writeInt(encoding.ids[i])
        out.writeInt(encoding.typeIds[i])
        out.writeInt(own[encoding.starts[i]])
        out.writeInt(own[encoding.ends[i]])
        out.writeInt(if (encoding.special[i]) 1 else 0)
        out.writeInt(encoding.words[i])
        out.writeInt(encoding.sequences[i])
    }
    for (token in encoding.tokens) out.write((token + "\u0000").toByteArray())
}

/** For each place in a String the number of code points before it. */
private fun codePlaces(text: String): IntArray {
    val places = IntArray(text.length + 1)
    for (i in text.indices) places[i + 1] = places[i] + if (text[i].isLowSurrogate()) 0 else 1
    return places
}

private object Nowhere : OutputStream() {
    override fun write(byte: Int) = Unit

    override fun write(bytes: ByteArray, from: Int, size: Int) = Unit
}
