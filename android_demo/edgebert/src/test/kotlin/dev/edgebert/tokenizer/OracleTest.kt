package dev.edgebert.tokenizer

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer
import dev.edgebert.Bundles
import java.io.File
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertEquals

/**
 * A second opinion: the Rust library in the JVM, as DJL carries it, two versions older than the one that Python has and that
 * decides. On these texts, of all blocks, they do not differ.
 */
class OracleTest {
    init {
        System.setProperty("ai.djl.offline", "true")
    }

    @Test
    fun wordPieceIsTheLibrarys() = compare(File(Bundles.default, "tokenizer.json").readText())

    @Test
    fun unigramIsTheLibrarys() = compare(Samples.PIECES)

    @Test
    fun bytesAreTheLibrarys() = compare(Samples.BYTES)

    private fun compare(json: String) {
        val ours = Tokenizer.read(json.byteInputStream())
        val options = mapOf("addSpecialTokens" to "true", "truncation" to "false", "padding" to "false")
        HuggingFaceTokenizer.newInstance(json.byteInputStream(), options).use { theirs ->
            val random = Random(23)
            repeat(TEXTS) {
                val text = text(random)
                val wanted = theirs.encode(text)
                val found = ours.encode(text)
                assertEquals(wanted.ids.toList(), found.ids.map { it.toLong() }, shown(text))
                assertEquals(wanted.tokens.toList(), found.tokens.toList(), shown(text))
            }
        }
    }

    private fun text(random: Random): String = buildString {
        val first = random.nextInt(0x1100) shl 8
        repeat(random.nextInt(1, 40)) {
            val code = when (random.nextInt(4)) {
                0 -> random.nextInt(0x20, 0x7F)
                1 -> random.nextInt(0x370)
                2 -> first + random.nextInt(0x100)
                else -> random.nextInt(0x3000)
            }
            if (code !in 0xD800..0xDFFF) appendCodePoint(code)
            if (random.nextInt(6) == 0) append(' ')
        }
    }

    private fun shown(text: String): String = text.codePoints().toArray().joinToString(" ") { "U+" + it.toString(16) }

    private companion object {
        const val TEXTS = 20_000
    }
}
