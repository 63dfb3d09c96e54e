package dev.edgebert

import android.content.res.AssetManager
import dev.edgebert.answers.Asked
import dev.edgebert.answers.choose
import dev.edgebert.answers.classify
import dev.edgebert.answers.entities
import dev.edgebert.answers.fill
import dev.edgebert.answers.next
import dev.edgebert.answers.replaced
import dev.edgebert.answers.similarity
import dev.edgebert.answers.span
import dev.edgebert.bundle.AssetFiles
import dev.edgebert.bundle.BundleFiles
import dev.edgebert.bundle.FolderFiles
import dev.edgebert.bundle.Manifest
import dev.edgebert.bundle.reading
import dev.edgebert.engines.Engine
import dev.edgebert.engines.Engines
import dev.edgebert.engines.Tensor
import dev.edgebert.gate.Gate
import dev.edgebert.gate.Golden
import dev.edgebert.tokenizer.Encoding
import dev.edgebert.tokenizer.Tokenizer
import java.io.Closeable
import java.io.File
import kotlin.math.max
import kotlin.math.min

/**
 * An open bundle: text in, the task's answer out, the same as Python's `edgebert.open(folder)` gives.
 *
 * Threads may share one; the model answers them one after the other, and [close] waits for the answer that is being
 * made. Every function throws [EdgebertException], with a sentence that says what is wrong: a text has no words, the
 * bundle is for another task, or it is closed.
 *
 * @property manifest what the bundle says of itself.
 * @property tokenizer null where the model came without one.
 */
public class Edgebert private constructor(
    public val manifest: Manifest,
    public val tokenizer: Tokenizer?,
    private val files: BundleFiles,
    private val engine: Engine,
) : Closeable {
    private val lock = Any()
    private var open = true

    /** The runtime that answers, and its version. */
    public val runtime: String get() = engine.runtime

    /**
     * What the bundle's task makes of a text: what [classify], [entities], [answer] and so on give.
     *
     * @param pairs the second text where the task takes one: the context of a question, or the choices.
     */
    public fun predict(text: String, vararg pairs: String): Answer {
        val (least, most, wanted) = when (manifest.task) {
            "question-answering" -> Triple(1, 1, "a context")
            "multiple-choice" -> Triple(2, Int.MAX_VALUE, "two choices or more")
            else -> Triple(0, 1, "at most one")
        }
        if (pairs.size !in least..most) {
            throw EdgebertException("${pairs.size} further texts for ${manifest.task}, which takes $wanted.")
        }
        val pair = pairs.firstOrNull()
        return when (manifest.task) {
            "base" -> states(text, pair)
            "masked-lm", "causal-lm" -> fill(text, pair)
            "sequence-classification" -> classify(text, pair)
            "multiple-choice" -> choose(text, pairs.toList())
            "sentence-embedding" -> if (pair == null) embed(text) else similarity(text, pair)
            "token-classification" -> entities(text, pair)
            "replaced-token-detection" -> replaced(text, pair)
            "question-answering" -> answer(text, pairs[0])
            else -> throw EdgebertException("${files.place} is for ${manifest.task}, which this library does not know.")
        }
    }

    /** The labels of a text, or a pair. */
    @JvmOverloads
    public fun classify(text: String, pair: String? = null): Classification {
        only("sequence-classification")
        val asked = ask(listOf(text to pair))
        // Logits, or what the file makes of them by itself.
        val (output, given) = asked.outputs[0].entries.singleOrNull()
            ?: throw EdgebertException("A classifier gives one output, and this one ${asked.outputs[0].keys}.")
        return classify(output, given.values, manifest.labels, manifest.reading, asked)
    }

    /** Which of two or more [choices] goes best with a text. */
    public fun choose(text: String, choices: List<String>): Choice {
        only("multiple-choice")
        if (choices.size < 2) throw EdgebertException("${choices.size} choices came; two or more are needed.")
        val asked = ask(choices.map { text to it })
        val logits = FloatArray(choices.size) { asked.outputs[it].getValue("logits").values[0] }
        return choose(logits, choices, manifest.reading, asked)
    }

    /** The tokens, words and entities of a text, or a pair, and their labels. */
    @JvmOverloads
    public fun entities(text: String, pair: String? = null): Entities {
        only("token-classification")
        return entities(text, pair, ask(listOf(text to pair)), manifest, words())
    }

    /**
     * Where in a context of any length the answer to a question stands. A context that is too long is read in windows.
     *
     * @param mayBeNone whether the model was trained on questions without an answer, as those of SQuAD 2.
     */
    @JvmOverloads
    public fun answer(question: String, context: String, mayBeNone: Boolean = false): Span {
        only("question-answering")
        val longest = manifest.lengths.last()
        val whole = words().encode(question, context)
        checkWords(whole, question)
        val windows = words().windows(question, context, longest, min(longest / 2, manifest.reading.stride ?: 0))
        val asked = Asked(windows, run(windows), truncated = false, tokenCount = whole.size)
        return span(context, asked, manifest.reading, mayBeNone)
    }

    /** For masked-lm the likeliest pieces for each [MASK]; for causal-lm those that come next. */
    @JvmOverloads
    public fun fill(text: String, pair: String? = null): Pieces {
        only("masked-lm", "causal-lm")
        val goesOn = manifest.task == "causal-lm" // also from nothing, with the first piece of all
        val asked = ask(listOf(text to pair), empty = goesOn)
        return if (goesOn) next(asked, manifest.reading, words()) else fill(asked, manifest.reading, words())
    }

    /** Continues a text with the likeliest piece each time, until [SEP], [maxNewTokens] or the longest length. */
    @JvmOverloads
    public fun generate(text: String, maxNewTokens: Int = 20): Generated {
        only("causal-lm")
        if (maxNewTokens < 1) throw EdgebertException("maxNewTokens=$maxNewTokens; it must be at least 1.")
        val prompt = words().encode(text).ids.dropLast(1) // without the closing [SEP]
        val longest = manifest.lengths.last()
        if (prompt.size > longest) {
            throw EdgebertException(
                "the text has ${prompt.size} tokens with [CLS], and the model takes $longest: shorten the text, or " +
                    "export with a longer length.",
            )
        }
        val ids = prompt.toMutableList()
        var stopped = "max_new_tokens"
        for (step in 1..maxNewTokens) {
            if (ids.size > longest) {
                stopped = "length"
                break
            }
            val row = raw(ids.toIntArray()).getValue("logits").row(0).row(ids.size - 1).values
            // Rows above the tokenizer's vocabulary are no pieces.
            ids += (0 until min(row.size, words().vocabSize)).maxByOrNull { row[it] } ?: 0
            if (ids.last() == words().sepId) {
                stopped = "sep"
                break
            }
        }
        val added = ids.drop(prompt.size)
        return Generated(words().decode(added.toIntArray()), added, prompt, stopped)
    }

    /** How much each token looks replaced; for replaced-token-detection. */
    @JvmOverloads
    public fun replaced(text: String, pair: String? = null): Replaced {
        only("replaced-token-detection")
        return replaced(text, pair, ask(listOf(text to pair)), manifest.reading)
    }

    /** The shape of the encoder's output and its mean over the text's own tokens; for base. */
    @JvmOverloads
    public fun states(text: String, pair: String? = null): States {
        only("base")
        val asked = ask(listOf(text to pair))
        val states = asked.outputs[0].getValue("last_hidden_state")
        val (tokens, width) = asked.encodings[0].size to states.shape[1]
        // In single precision, as numpy takes a mean along the first axis.
        val mean = FloatArray(width)
        for (token in 0 until tokens) for (i in 0 until width) mean[i] += states.values[token * width + i]
        return States(
            listOf(tokens, width), mean.map { (it / tokens).toDouble() }, asked.truncated, asked.tokenCount,
        )
    }

    /** A text as one vector. The prompt that the model was exported with stands before it. */
    public fun embed(text: String): Embedding {
        val asked = vectors(text)
        val vector = asked.outputs[0].getValue("sentence_embedding").values
        return Embedding(vector.toList(), asked.truncated, asked.tokenCount)
    }

    /** How alike two texts are, by the model's own measure. */
    public fun similarity(text: String, other: String): Similarity {
        val asked = vectors(text, other)
        val (one, two) = asked.outputs.map { it.getValue("sentence_embedding").values }
        val alike = similarity(one, two, manifest.reading.similarity ?: "cosine")
        return Similarity(alike, asked.truncated, asked.tokenCount)
    }

    /** A text, or a pair, as the model reads it, whole. */
    @JvmOverloads
    public fun encode(text: String, pair: String? = null): Encoding = words().encode(text, pair)

    /**
     * The model's outputs by name for a row of ids. It is padded to the smallest length that fits, and outputs are cut
     * back to it.
     *
     * @param types of each id, 0 where they are left out.
     * @param mask 1 for each id that counts, all where it is left out.
     * @return outputs with a batch of one as first axis.
     */
    @JvmOverloads
    public fun raw(ids: IntArray, types: IntArray? = null, mask: IntArray? = null): Map<String, Tensor> {
        val row = mapOf(
            "input_ids" to ids,
            "attention_mask" to (mask ?: IntArray(ids.size) { 1 }),
            "token_type_ids" to (types ?: IntArray(ids.size)),
        )
        if (row.values.any { it.size != ids.size } || ids.isEmpty()) {
            throw EdgebertException(
                "rows of ${row.map { (name, values) -> "${values.size} $name" }.joinToString()}: as many of each, and " +
                    "one at least, are needed.",
            )
        }
        return run(row)
    }

    /**
     * The parity gate, here: the bundle's golden inputs through this machine's kernels, held to torch's answers, and its
     * golden sentences through the tokenizer.
     *
     * @param progress is told what is being done, and which share is done, 0 to 1.
     */
    @JvmOverloads
    public fun check(progress: (String, Double) -> Unit = { _, _ -> }): CheckReport =
        Gate(Golden.read(files, manifest), manifest, tokenizer) { run(it) }.check(runtime, progress)

    /** Frees the model's native memory. Everything else throws [EdgebertException] from then on. */
    override fun close() {
        synchronized(lock) {
            if (open) engine.close()
            open = false
        }
    }

    private fun only(vararg tasks: String) {
        if (manifest.task !in tasks) {
            throw EdgebertException(
                "${files.place} is for ${manifest.task}, and this is for ${tasks.joinToString(" and ")}.",
            )
        }
    }

    private fun words(): Tokenizer = tokenizer ?: throw EdgebertException(
        "${files.place} has no tokenizer.json (its model came without one): call raw() with ids.",
    )

    private fun vectors(vararg texts: String): Asked {
        only("sentence-embedding")
        val prompted = manifest.prompt.isNotEmpty()
        if (prompted) for (text in texts) checkWords(words().encode(text), text) // a prompt has words of its own
        return ask(texts.map { manifest.prompt + it to null }, empty = prompted)
    }

    /** Runs texts and pairs, cut where they are too long; one without words is refused, unless it may be [empty]. */
    private fun ask(texts: List<Pair<String, String?>>, empty: Boolean = false): Asked {
        val longest = manifest.lengths.last()
        val whole = texts.map { (text, pair) ->
            words().encode(text, pair).also { if (!empty) checkWords(it, text, pair) }
        }
        val given = whole.maxOf { it.size }
        val cut = if (given <= longest) whole else texts.map { (text, pair) -> words().encode(text, pair, longest) }
        return Asked(cut, run(cut), given > longest, given)
    }

    /** Throws where one of the texts, encoded whole, has nothing in it to answer for. */
    private fun checkWords(encoding: Encoding, vararg texts: String?) {
        for ((number, text) in texts.withIndex()) {
            if (text != null && number !in encoding.sequences) {
                throw EdgebertException("the text '${text.take(40)}' has no words: there is nothing to answer.")
            }
        }
    }

    /** The outputs of encoded texts, none of them too long, each without its batch of one. */
    private fun run(encodings: List<Encoding>): List<Map<String, Tensor>> {
        // All of one length, filled up with the tokenizer's own padding: a ConvBERT's convolutions see it.
        val length = fitting(encodings.maxOf { it.size })
        return encodings.map { encoding ->
            val row = mapOf(
                "input_ids" to padded(encoding.ids, length, words().padId),
                "attention_mask" to padded(IntArray(encoding.size) { 1 }, length, 0),
                "token_type_ids" to padded(
                    IntArray(encoding.size) { min(encoding.typeIds[it], max(manifest.typeVocabSize - 1, 0)) }, length, 0,
                ),
            )
            run(row).mapValues { (_, output) -> output.row(0) }
        }
    }

    /** The smallest of the file's lengths that fits. */
    private fun fitting(tokens: Int): Int = when {
        tokens > manifest.lengths.last() -> throw EdgebertException(
            "$tokens tokens, but the file takes at most ${manifest.lengths.last()}: shorten the text, or export with a " +
                "longer length.",
        )
        manifest.dynamic -> tokens
        else -> manifest.lengths.first { it >= tokens }
    }

    /** Outputs for a row of one of the inputs by name, cut back to its own tokens. */
    private fun run(row: Map<String, IntArray>): Map<String, Tensor> {
        val ids = row.getValue("input_ids")
        if (ids.any { it !in 0 until manifest.vocabSize }) {
            throw EdgebertException(
                "input_ids from ${ids.min()} to ${ids.max()}, but the vocabulary has ids 0 to ${manifest.vocabSize - 1}: " +
                    "use the model's own tokenizer.",
            )
        }
        val length = fitting(ids.size)
        val inputs = manifest.inputs.associate { spec -> spec.name to padded(row.getValue(spec.name), length, 0) }
        val outputs = synchronized(lock) {
            if (!open) throw EdgebertException("${files.place} is closed: open the bundle again.")
            engine.run(inputs)
        }
        return outputs.mapValues { (name, output) -> if (overTokens(name, output)) cut(output, ids.size) else output }
    }

    public companion object {
        /** As many threads as there are big cores, up to four. */
        public const val BIG_CORES: Int = 0

        private val INPUTS = setOf("input_ids", "attention_mask", "token_type_ids")

        /**
         * Opens the bundle in the folder [name] of an app's assets.
         *
         * @throws EdgebertException it is no bundle, or a later version's, a file is missing or damaged, or the app has
         * no library that runs it.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(assets: AssetManager, name: String, threads: Int = BIG_CORES): Edgebert =
            open(AssetFiles(assets, name.trimEnd('/')), threads)

        /** Opens the bundle in a folder; throws as its sibling does. */
        @JvmStatic
        @JvmOverloads
        public fun open(folder: File, threads: Int = BIG_CORES): Edgebert = open(FolderFiles(folder), threads)

        private fun open(files: BundleFiles, threads: Int): Edgebert {
            if (threads < 0) throw EdgebertException("$threads threads; one or more are needed, or 0 for the big cores.")
            val manifest = Manifest.read(files)
            if (INPUTS.containsAll(manifest.inputs.map { it.name }).not()) {
                throw EdgebertException(
                    "${files.place} takes ${manifest.inputs.joinToString { it.name }}; ${INPUTS.joinToString()} are " +
                        "known to this library.",
                )
            }
            val tokenizer = if (Manifest.TOKENIZER !in manifest.files) {
                null
            } else {
                files.reading(Manifest.TOKENIZER) { Tokenizer.read(files.open(Manifest.TOKENIZER)) }
            }
            val model = files.reading(manifest.modelFile) { files.map(manifest.modelFile) }
            val engine = Engines.open(model, manifest, if (threads == BIG_CORES) Cores.big() else threads)
            return Edgebert(manifest, tokenizer, files, engine)
        }

        private fun padded(row: IntArray, length: Int, fill: Int) =
            IntArray(length) { if (it < row.size) row[it] else fill }

        /** Whether axis 1 of an output with a batch axis runs over tokens: the task's names and ranks tell. */
        internal fun overTokens(name: String, output: Tensor): Boolean =
            output.shape.size == 3 || name == "start_logits" || name == "end_logits"

        private fun cut(output: Tensor, tokens: Int): Tensor {
            val shape = output.shape.copyOf().also { it[1] = min(tokens, it[1]) }
            return Tensor(shape, output.values.copyOf(shape.fold(1, Int::times)))
        }
    }
}
