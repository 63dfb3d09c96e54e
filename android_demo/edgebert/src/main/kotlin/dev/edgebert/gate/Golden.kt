package dev.edgebert.gate

import com.google.gson.JsonParser
import dev.edgebert.EdgebertException
import dev.edgebert.bundle.BundleFiles
import dev.edgebert.bundle.Manifest
import dev.edgebert.bundle.reading
import java.io.ByteArrayOutputStream
import java.io.InputStream
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.ZipInputStream

/** Numbers of a golden file: int32 or float32 in row-major order. */
internal class Numbers(val shape: IntArray, val ints: IntArray?, val floats: FloatArray?) {
    /** How many rows the first axis has. */
    val rows: Int get() = shape[0]

    /** Row [i] of integers. */
    fun ints(i: Int): IntArray = ints!!.copyOfRange(i * (ints.size / rows), (i + 1) * (ints.size / rows))

    /** Row [i] of floats. */
    fun floats(i: Int): FloatArray = floats!!.copyOfRange(i * (floats.size / rows), (i + 1) * (floats.size / rows))
}

/** Inputs (B, T) by name, and what torch answers to them. */
internal class Batch(val name: String, val inputs: Map<String, Numbers>, val expected: Map<String, Numbers>) {
    val rows: Int get() = inputs.getValue("input_ids").rows
    val tokens: Int get() = inputs.getValue("input_ids").shape[1]

    /** Row [i] of each input. */
    fun row(i: Int): Map<String, IntArray> = inputs.mapValues { it.value.ints(i) }

    /** Of row [i], where the attention mask says that there is a token. */
    fun mask(i: Int): List<Boolean> = inputs.getValue("attention_mask").ints(i).map { it == 1 }
}

/** A sentence, or a pair, and the ids that the checkpoint's tokenizer makes of it. */
internal class Sentence(val text: String, val pair: String?, val ids: List<Int>)

/**
 * A bundle's golden inputs and torch's answers, as Python's `edgebert/gate/golden.py` writes them.
 *
 * @property batches one for each length, ascending.
 * @property types the first batch with token types exchanged.
 * @property damaged what was broken in a model, to that one's outputs for the first batch.
 * @property sentences empty in a bundle without a tokenizer.
 */
internal class Golden(
    val batches: List<Batch>,
    val types: Batch,
    val damaged: Map<String, Map<String, Numbers>>,
    val sentences: List<Sentence>,
) {
    companion object {
        private const val LARGEST = 1 shl 28 // bytes of an array

        /** @throws EdgebertException a file is not what Python writes. */
        fun read(files: BundleFiles, manifest: Manifest): Golden = try {
            val arrays = files.reading(Manifest.GOLDEN) { files.open(Manifest.GOLDEN).use(::arrays) }
            val sides = arrays.entries.groupBy { (name, _) -> name.substringBeforeLast('/') }
                .mapValues { (_, entries) -> entries.associate { it.key.substringAfterLast('/') to it.value } }
            val batches = sides.keys.filter { it.endsWith("/in") }.map { it.removeSuffix("/in") }
                .map { Batch(it, sides.getValue("$it/in"), sides.getValue("$it/out")) }
            Golden(
                batches.filter { it.name.startsWith("tokens_") }.sortedBy { it.tokens },
                batches.single { it.name.startsWith("types_") },
                sides.filterKeys { it.startsWith("damaged/") }.mapKeys { it.key.removePrefix("damaged/") },
                sentences(files, manifest),
            )
        } catch (error: EdgebertException) {
            throw error
        } catch (error: RuntimeException) { // of a dozen kinds on damaged files
            throw EdgebertException("${files.place}: its golden inputs are damaged: export the bundle again.", error)
        }

        private fun sentences(files: BundleFiles, manifest: Manifest): List<Sentence> {
            if (Manifest.SENTENCES !in manifest.files) return emptyList()
            val text = files.reading(Manifest.SENTENCES) { files.open(Manifest.SENTENCES).use { it.readBytes() } }
            val raw = JsonParser.parseString(String(text, Charsets.UTF_8)).asJsonObject
            return raw.getAsJsonArray("sentences").map { it.asJsonObject }.map { said ->
                Sentence(
                    said.get("text").asString,
                    said.get("pair")?.takeUnless { it.isJsonNull }?.asString,
                    said.getAsJsonArray("ids").map { it.asInt },
                )
            }
        }

        /** The arrays of an .npz file, a zip of .npy files, by their names. */
        private fun arrays(stream: InputStream): Map<String, Numbers> {
            val found = LinkedHashMap<String, Numbers>()
            val zip = ZipInputStream(stream)
            while (true) {
                val entry = zip.nextEntry ?: return found
                found[entry.name.removeSuffix(".npy")] = array(bytes(zip))
            }
        }

        private fun bytes(stream: InputStream): ByteArray {
            val all = ByteArrayOutputStream()
            val part = ByteArray(1 shl 16)
            while (true) {
                val count = stream.read(part)
                if (count < 0) return all.toByteArray()
                check(all.size() + count <= LARGEST) { "an array of more than $LARGEST bytes" }
                all.write(part, 0, count)
            }
        }

        /** An .npy file: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. */
        private fun array(bytes: ByteArray): Numbers {
            val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
            val start = if (bytes[6].toInt() == 1) 10 + data.getShort(8) else 12 + data.getInt(8)
            val header = String(bytes, 0, start, Charsets.ISO_8859_1)
            check("'fortran_order': False" in header) { "another order" }
            val shape = header.substringAfter("'shape': (").substringBefore(')').split(',').map { it.trim() }
                .filter { it.isNotEmpty() }.map { it.toInt() }.toIntArray()
            val size = shape.fold(1, Int::times)
            check(bytes.size - start == 4 * size) { "another size" }
            (data as Buffer).position(start) // ByteBuffer's own is not on Android 24
            return when {
                "'<i4'" in header -> Numbers(shape, IntArray(size).also { data.asIntBuffer().get(it) }, null)
                "'<f4'" in header -> Numbers(shape, null, FloatArray(size).also { data.asFloatBuffer().get(it) })
                else -> error("another type")
            }
        }
    }
}
