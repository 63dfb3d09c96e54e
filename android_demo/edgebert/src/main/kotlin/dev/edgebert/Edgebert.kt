package dev.edgebert

import android.content.res.AssetManager
import dev.edgebert.bundle.Manifest
import dev.edgebert.engines.Tensor
import dev.edgebert.tokenizer.Encoding
import dev.edgebert.tokenizer.Tokenizer
import java.io.Closeable
import java.io.File

/**
 * An open bundle: text in, the task's answer out. Threads may share one; they are answered one after the other, and
 * [close] waits for the answer that is being made.
 */
public class Edgebert private constructor(
    public val manifest: Manifest,
) : Closeable {
    /** The runtime that answers, and its version. */
    public val runtime: String get() = TODO()

    /** null where the model came without one. */
    public val tokenizer: Tokenizer? get() = TODO()

    /** What the bundle's task makes of a text: [classify], [entities], [answer] and so on; [pairs] are its further texts. */
    public fun predict(text: String, vararg pairs: String): Answer = TODO()

    public fun classify(text: String, pair: String? = null): Classification = TODO()

    public fun choose(text: String, choices: List<String>): Choice = TODO()

    public fun entities(text: String, pair: String? = null): Entities = TODO()

    public fun answer(question: String, context: String, mayBeNone: Boolean = false): Span = TODO()

    /** masked-lm: the likeliest pieces for each [MASK]; causal-lm: those that come next. */
    public fun fill(text: String, pair: String? = null): Pieces = TODO()

    /** causal-lm. */
    public fun generate(text: String, maxNewTokens: Int = 20): Generated = TODO()

    /** replaced-token-detection. */
    public fun replaced(text: String, pair: String? = null): Replaced = TODO()

    /** base. */
    public fun states(text: String, pair: String? = null): States = TODO()

    public fun embed(text: String): Embedding = TODO()

    public fun similarity(text: String, other: String): Similarity = TODO()

    /** A text as the model reads it. */
    public fun encode(text: String, pair: String? = null): Encoding = TODO()

    /**
     * The model's outputs by name for a row of ids, padded to the smallest length that fits and cut back to it.
     * Each array has as many entries; types may be left out, they are 0 then, and the mask, it is 1 then.
     */
    public fun raw(ids: IntArray, types: IntArray? = null, mask: IntArray? = null): Map<String, Tensor> = TODO()

    /**
     * The parity gate, here: the bundle's golden inputs through this machine's kernels, held to torch's answers, and its
     * golden sentences through the tokenizer.
     *
     * @param progress is told what is being done, and the share that is done, 0 to 1.
     */
    public fun check(progress: (String, Double) -> Unit = { _, _ -> }): CheckReport = TODO()

    /** Frees the model's native memory. Everything but [close] throws [EdgebertException] from then on. */
    override fun close(): Unit = TODO()

    public companion object {
        /** Opens the bundle in the folder [name] of an app's assets. */
        @JvmStatic
        @JvmOverloads
        public fun open(assets: AssetManager, name: String, threads: Int = DEFAULT_THREADS): Edgebert = TODO()

        /** Opens the bundle in a folder. */
        @JvmStatic
        @JvmOverloads
        public fun open(folder: File, threads: Int = DEFAULT_THREADS): Edgebert = TODO()

        /** As many threads as there are big cores, up to four. */
        public const val DEFAULT_THREADS: Int = 0
    }
}

/**
 * One question that [Edgebert.check] asked.
 *
 * @property name what was asked.
 * @property decibels signal to error; infinite where equal, null where the question is none of decibels.
 * @property least decibels that are due; null likewise.
 * @property detail what came out, in words.
 */
public data class Check(
    val name: String,
    val passed: Boolean,
    val decibels: Double?,
    val least: Double?,
    val detail: String,
)

/** Everything that [Edgebert.check] saw. */
public data class CheckReport(val runtime: String, val checks: List<Check>) {
    /** Whether every check passed. */
    val passed: Boolean get() = checks.all { it.passed }
}
