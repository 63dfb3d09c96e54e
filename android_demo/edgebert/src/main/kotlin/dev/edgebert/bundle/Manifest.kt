package dev.edgebert.bundle

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import com.google.gson.JsonParser
import com.google.gson.Strictness
import com.google.gson.stream.JsonReader
import dev.edgebert.EdgebertException
import java.io.FileNotFoundException
import java.io.IOException
import java.io.StringReader
import java.nio.ByteBuffer
import java.security.MessageDigest

/**
 * What a bundle's `manifest.json` says; the fields that an app needs. Each is explained where Python writes it, in
 * `edgebert/bundle/manifest.py`.
 *
 * @property parity whether the bundle passed the gate when it was exported; null where nobody looked.
 * @property tolerance what the bundle is held to; null likewise.
 * @property prompt stands before each text of a sentence encoder.
 * @property typeVocabSize how many token types the model has.
 */
public class Manifest internal constructor(
    public val family: String,
    public val source: String,
    public val task: String,
    public val target: String,
    public val recipe: String,
    public val floor: String,
    public val lengths: List<Int>,
    public val dynamic: Boolean,
    public val vocabSize: Int,
    public val padId: Int,
    public val paddingInvariant: Boolean,
    public val parameters: Long,
    public val labels: List<String>,
    public val reading: Reading,
    public val modelFile: String,
    public val inputs: List<Spec>,
    public val outputs: List<Spec>,
    public val files: Map<String, Entry>,
    public val typeVocabSize: Int,
    public val prompt: String,
    public val parity: Boolean?,
    public val tolerance: Tolerance?,
    public val notes: List<String>,
) {
    internal companion object {
        const val NAME = "manifest.json"
        const val TOKENIZER = "tokenizer.json"
        const val GOLDEN = "golden.npz"
        const val SENTENCES = "golden.json"
        private const val FORMAT = "edgebert-bundle"
        private const val VERSION = 5
        private const val LARGEST = 8 shl 20
        private const val SEAL = "sha256"
        private val ACTIVATIONS = listOf("softmax", "sigmoid", "tanh", "none")

        /**
         * Reads a bundle's manifest and holds each file that it lists to its sha256.
         *
         * @throws EdgebertException it is no bundle, a later version's, edited or damaged; the message says which.
         */
        fun read(files: BundleFiles): Manifest {
            val content = content(files)
            val path = "${files.place}/$NAME"
            val raw = try {
                // Gson makes of a stream that is cut short an EOFException or a JsonParseException.
                JsonParser.parseReader(strict(content)).asJsonObject
            } catch (error: RuntimeException) {
                throw EdgebertException("$path is no JSON object: copy the bundle again.", error)
            }
            if (raw.text("format") != FORMAT) {
                throw EdgebertException("$path: format is not $FORMAT: this is no bundle's manifest.")
            }
            val version = raw.get("version")?.toString()
            if (version != VERSION.toString()) {
                throw EdgebertException(
                    "$path: version $version; this library reads $VERSION: export the bundle again, or update the " +
                        "library.",
                )
            }
            val manifest = try {
                fields(raw)
            } catch (error: RuntimeException) {
                throw EdgebertException("$path does not hold what belongs there: export the bundle again.", error)
            }
            manifest.check(path)
            for ((name, entry) in manifest.files) verify(files, name, entry)
            checkSeal(content, raw.text(SEAL), path)
            return manifest
        }

        private fun content(files: BundleFiles): ByteArray =
            try {
                files.open(NAME).use { it.readBytes() }.also {
                    if (it.size > LARGEST) throw EdgebertException("${files.place}/$NAME has ${it.size} bytes: too many.")
                }
            } catch (_: FileNotFoundException) {
                throw EdgebertException("${files.place} is no bundle: it has no $NAME. Make one with edgebert export.")
            } catch (error: IOException) {
                throw EdgebertException("${files.place}/$NAME cannot be read: ${error.message}.", error)
            }

        private fun strict(content: ByteArray): JsonReader =
            JsonReader(StringReader(String(content, Charsets.UTF_8))).apply { strictness = Strictness.STRICT }

        /** The manifest leads with the sha256 of itself with zeros in that place. */
        private fun checkSeal(content: ByteArray, said: String?, path: String) {
            val place = said?.let { find(content, it.toByteArray()) } ?: -1
            val blank = content.copyOf()
            if (place >= 0) blank.fill('0'.code.toByte(), place, place + said!!.length)
            if (place < 0 || hex(MessageDigest.getInstance("SHA-256").digest(blank)) != said) {
                throw EdgebertException("$path is damaged or was edited: export or copy the bundle again.")
            }
        }

        private fun find(content: ByteArray, wanted: ByteArray): Int =
            (0..content.size - wanted.size).firstOrNull { at -> wanted.indices.all { content[at + it] == wanted[it] } } ?: -1

        private fun verify(files: BundleFiles, name: String, entry: Entry) {
            // Written in its one way, and below the bundle.
            if (name.isEmpty() || name.split('/').any { it == "" || it == "." || it == ".." } || '\\' in name) {
                throw EdgebertException("${files.place}/$NAME: '$name' is no file's name: export the bundle again.")
            }
            val bytes = files.reading(name) { files.map(name) }
            if (bytes.remaining().toLong() != entry.bytes || sha256(bytes) != entry.sha256) {
                throw EdgebertException(
                    "${files.place}/$name is not the file that was exported (its sha256 differs): copy or export the " +
                        "bundle again.",
                )
            }
        }

        private fun sha256(bytes: ByteBuffer): String =
            hex(MessageDigest.getInstance("SHA-256").apply { update(bytes.duplicate()) }.digest())

        private fun hex(bytes: ByteArray): String =
            bytes.joinToString("") { ((it.toInt() and 255) + 256).toString(16).substring(1) }

        /** Any exception means that a field is not there, or is of another type. */
        private fun fields(raw: JsonObject): Manifest {
            val config = raw.getAsJsonObject("config")
            val parity = raw.get("parity").takeUnless { it.isJsonNull }?.asJsonObject
            return Manifest(
                family = raw.string("family"),
                source = raw.string("source"),
                task = raw.string("task"),
                target = raw.string("target"),
                recipe = raw.string("recipe"),
                floor = raw.string("floor"),
                lengths = raw.getAsJsonArray("lengths").map { it.asInt },
                dynamic = raw.get("dynamic").asBoolean,
                vocabSize = raw.get("vocab_size").asInt,
                padId = raw.get("pad_id").asInt,
                paddingInvariant = raw.get("padding_invariant").asBoolean,
                parameters = raw.get("parameters").asLong,
                labels = raw.getAsJsonArray("labels").map { it.asString },
                reading = reading(raw.getAsJsonObject("reading")),
                modelFile = raw.string("model_file"),
                inputs = raw.getAsJsonArray("inputs").map(::spec),
                outputs = raw.getAsJsonArray("outputs").map(::spec),
                files = raw.getAsJsonObject("files").entrySet().associate { (name, said) ->
                    name to Entry(said.asJsonObject.get("bytes").asLong, said.asJsonObject.string("sha256"))
                },
                typeVocabSize = config.get("type_vocab_size")?.asInt ?: 1, // without the field there are no types
                prompt = config.getAsJsonObject("pooling").string("prompt"),
                parity = parity?.get("passed")?.asBoolean,
                tolerance = parity?.getAsJsonObject("tolerance")?.let {
                    Tolerance(it.get("min_sqnr_db").asDouble, it.get("min_label_agreement").asDouble, it.string("reason"))
                },
                notes = raw.getAsJsonArray("notes").map { it.asString },
            )
        }

        private fun reading(raw: JsonObject) = Reading(
            activation = raw.string("activation"),
            threshold = raw.known("threshold")?.asDouble,
            aggregation = raw.known("aggregation")?.asString,
            stride = raw.known("stride")?.asInt,
            longestAnswer = raw.known("longest_answer")?.asInt,
            similarity = raw.known("similarity")?.asString,
        )

        private fun spec(raw: JsonElement): Spec = raw.asJsonObject.let { said ->
            Spec(said.string("name"), said.string("dtype"), said.getAsJsonArray("shape").map { it.asInt })
        }

        private fun JsonObject.known(name: String): JsonElement? = get(name).takeUnless { it.isJsonNull }

        private fun JsonObject.string(name: String): String =
            text(name) ?: throw JsonParseException("$name is no string")

        private fun JsonObject.text(name: String): String? =
            get(name)?.takeIf { it.isJsonPrimitive && it.asJsonPrimitive.isString }?.asString
    }

    private fun check(path: String) {
        if (lengths.isEmpty() || lengths != lengths.toSortedSet().toList() || lengths.first() < 1) {
            throw EdgebertException("$path: lengths=$lengths; ascending positive integers are needed: export again.")
        }
        if (inputs.isEmpty() || outputs.isEmpty() || inputs.any { it.shape.isEmpty() }) {
            throw EdgebertException("$path names no inputs with axes, or no outputs: export the bundle again.")
        }
        if (reading.activation !in ACTIVATIONS) {
            throw EdgebertException(
                "$path: reading by ${reading.activation} is not known to this library, ${ACTIVATIONS.joinToString()} " +
                    "are: update it.",
            )
        }
        for (name in listOf(modelFile, GOLDEN)) {
            if (files.keys.none { it == name || it.startsWith("$name/") }) {
                throw EdgebertException("$path does not list $name: export the bundle again.")
            }
        }
    }
}

/**
 * How logits become an answer; Python's `edgebert.answers.reading.Reading`.
 *
 * @property activation `softmax`, `sigmoid` or `tanh` of logits, or `none`.
 * @property threshold several labels may apply, those from this score on; null where one does.
 * @property aggregation of tokens to words, `first`: a word has its first piece's label.
 * @property stride tokens that windows over a long context have in common.
 * @property longestAnswer tokens that an answer found in a context has at most.
 * @property similarity of two texts' vectors: `cosine`, `dot`, `euclidean` or `manhattan`.
 */
public class Reading internal constructor(
    public val activation: String,
    public val threshold: Double? = null,
    public val aggregation: String? = null,
    public val stride: Int? = null,
    public val longestAnswer: Int? = null,
    public val similarity: String? = null,
)

/** An input or output of the model file; in its shape -1 is a free axis. */
public class Spec internal constructor(public val name: String, public val dtype: String, public val shape: List<Int>)

/** What is said of a file. */
public class Entry internal constructor(public val bytes: Long, public val sha256: String)

/** What the bundle is held to: decibels of signal to error, and the share of decided labels that agree. */
public class Tolerance internal constructor(
    public val minSqnrDb: Double,
    public val minLabelAgreement: Double,
    public val reason: String,
)
