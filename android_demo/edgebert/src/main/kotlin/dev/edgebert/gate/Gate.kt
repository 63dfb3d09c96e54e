package dev.edgebert.gate

import dev.edgebert.Check
import dev.edgebert.CheckReport
import dev.edgebert.EdgebertException
import dev.edgebert.bundle.Manifest
import dev.edgebert.bundle.Tolerance
import dev.edgebert.engines.Tensor
import dev.edgebert.tokenizer.Tokenizer
import java.util.Locale
import kotlin.math.ln
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.sqrt

/** A row's outputs by name, each without its batch of one. */
private typealias Answers = Map<String, FloatArray>

/** How many rows of the first batch come back, padded further, in each later one. */
private const val REPEATED = 3

/** Logits over a vocabulary are kept for so many tokens. */
private const val WIDE = 4096
private const val WIDE_TOKENS = 4

/** Outputs that have a number for each label; what a probability or a score nearer to 0 or 1 counts as. */
private val CLASSES = listOf("logits", "probabilities", "scores")
private const val SURE = 1e-4

/**
 * Does this machine say what torch says? The questions that Python's `edgebert/gate/parity.py` asks of a file, of the
 * kernels that run it here.
 *
 * @property run outputs, with a batch axis, for a row of each input.
 */
internal class Gate(
    private val golden: Golden,
    private val manifest: Manifest,
    private val tokenizer: Tokenizer?,
    private val run: (Map<String, IntArray>) -> Map<String, Tensor>,
) {
    private val tolerance: Tolerance = manifest.tolerance ?: throw EdgebertException(
        "this bundle was exported without a look at it, so it says no tolerance: export it without --no-validate.",
    )
    private val first = golden.batches.first()

    fun check(runtime: String, progress: (String, Double) -> Unit): CheckReport {
        val steps = golden.batches + golden.types
        val rows = steps.sumOf { it.rows }
        var done = 0
        val answers = steps.map { batch ->
            (0 until batch.rows).map { row ->
                progress("${batch.tokens} tokens, row ${row + 1} of ${batch.rows}", done++ / rows.toDouble())
                answer(batch.row(row))
            }
        }
        val plain = answers.dropLast(1)
        val checks = first.expected.keys.map { equalsTorch(it, plain) } + listOfNotNull(
            padding(plain),
            types(answers.last()),
            emptyRow(),
            vocabulary(),
            damaged(plain[0]),
            sentences(),
        )
        progress("done", 1.0)
        return CheckReport(runtime, checks)
    }

    private fun answer(row: Map<String, IntArray>): Answers = run(row).mapValues { (_, output) ->
        val wide = output.shape.size == 3 && output.shape[2] > WIDE
        if (wide) output.values.copyOf(min(output.shape[1], WIDE_TOKENS) * output.shape[2]) else output.values
    }

    /** An output of all rows at all lengths, where there is a token. */
    private fun equalsTorch(name: String, answers: List<List<Answers>>): Check {
        val error = Error()
        val labels = mutableListOf<Pair<FloatArray, FloatArray>>()
        for ((batch, rows) in golden.batches.zip(answers)) {
            for (i in rows.indices) {
                val (want, got) = kept(batch, name, i, rows[i].getValue(name))
                error.add(want, got)
                labels += labels(batch, name, want, got)
            }
        }
        val clear = labels.filter { (one, _) -> isDecided(one, error.strength) }
        val decided = clear.size
        val agreeing = clear.count { (one, other) -> best(one) == best(other) }
        val enough = decided - agreeing <= Math.round(decided * (1 - tolerance.minLabelAgreement))
        val said = if (decided == 0) "" else ", $agreeing of $decided decided labels agree"
        val detail = "${decibels(error.sqnr)} from torch (at least ${decibels(tolerance.minSqnrDb)})$said"
        return Check("$name equals torch", enough && holds(error.sqnr), error.sqnr, tolerance.minSqnrDb, detail)
    }

    /** Torch's and this machine's numbers of a row, those at its tokens. */
    private fun kept(batch: Batch, name: String, row: Int, got: FloatArray): Pair<FloatArray, FloatArray> {
        val want = batch.expected.getValue(name).floats(row)
        if (want.size != got.size) {
            throw EdgebertException("the file's $name has ${got.size} numbers a row, torch's ${want.size}.")
        }
        if (!overTokens(batch, name)) return asLogits(name, want) to asLogits(name, got)
        val mask = batch.mask(row)
        val width = want.size / batch.expected.getValue(name).shape[1]
        fun cut(numbers: FloatArray) = FloatArray(numbers.size).let { all ->
            var at = 0
            for (i in numbers.indices) if (mask[i / width]) all[at++] = numbers[i]
            all.copyOf(at)
        }
        return cut(want) to cut(got)
    }

    private fun overTokens(batch: Batch, name: String): Boolean =
        batch.expected.getValue(name).shape.size == 3 || name == "start_logits" || name == "end_logits"

    /** Logits of which each part names a label: of a row, of a token, or of all tokens for the ends of a span. */
    private fun labels(
        batch: Batch,
        name: String,
        want: FloatArray,
        got: FloatArray,
    ): List<Pair<FloatArray, FloatArray>> {
        val span = name == "start_logits" || name == "end_logits"
        val width = if (span) want.size else batch.expected.getValue(name).shape.last()
        if ((name !in CLASSES && !span) || width < 2) return emptyList()
        return (0 until want.size / width).map {
            want.copyOfRange(it * width, (it + 1) * width) to got.copyOfRange(it * width, (it + 1) * width)
        }
    }

    /**
     * Whether torch's lead over the second is more than twice the error that the tolerance allows: a share of the
     * [whole] output's strength, or of these logits' own where that is more.
     */
    private fun isDecided(logits: FloatArray, whole: Double): Boolean {
        val (second, top) = logits.sorted().takeLast(2)
        val strength = max(sqrt(logits.sumOf { it.toDouble() * it } / logits.size), whole)
        return top - second > 2 * strength * 10.0.pow(-tolerance.minSqnrDb / 20)
    }

    private fun best(logits: FloatArray): Int = logits.indices.maxByOrNull { logits[it] } ?: 0

    /** Whether answers stay what they were when a sentence is padded further. */
    private fun padding(answers: List<List<Answers>>): Check? {
        if (golden.batches.size == 1) return null
        var lowest = Double.POSITIVE_INFINITY
        for ((batch, rows) in golden.batches.zip(answers).drop(1)) {
            for (name in first.expected.keys) lowest = min(lowest, paddedFurther(batch, rows, name, answers[0]))
        }
        return Check(
            "padding", holds(lowest), lowest, tolerance.minSqnrDb, "padded further, ${decibels(lowest)} from the answer due",
        )
    }

    /** The first rows' difference, in decibel below the output's strength over the whole batch. */
    private fun paddedFurther(batch: Batch, rows: List<Answers>, name: String, short: List<Answers>): Double {
        val whole = Error()
        for (i in rows.indices) kept(batch, name, i, rows[i].getValue(name)).let { (want, _) -> whole.add(want, want) }
        val differs = Error()
        for (i in 0 until REPEATED) {
            // Against torch at that length where the model itself minds padding, against the short answer else.
            val (_, later) = kept(batch, name, i, rows[i].getValue(name))
            val due = if (manifest.paddingInvariant) {
                kept(first, name, i, short[i].getValue(name)).second
            } else {
                kept(batch, name, i, rows[i].getValue(name)).first
            }
            val count = min(later.size, due.size)
            differs.add(due.copyOf(count), later.copyOf(count))
        }
        return decibel(whole.signal / whole.count, differs.noise / differs.count)
    }

    private fun types(answers: List<Answers>): Check {
        val near = worst(golden.types, answers)
        val detail = "with token types exchanged, ${decibels(near)} from torch"
        return Check("token types matter", holds(near), near, tolerance.minSqnrDb, detail)
    }

    /** The lowest signal to error among the outputs of a batch. */
    private fun worst(batch: Batch, answers: List<Answers>): Double = batch.expected.keys.minOf { name ->
        val error = Error()
        for (i in answers.indices) kept(batch, name, i, answers[i].getValue(name)).let { (a, b) -> error.add(a, b) }
        error.sqnr
    }

    private fun emptyRow(): Check {
        val row = first.row(0) + ("attention_mask" to IntArray(first.tokens))
        val finite = answer(row).values.all { values -> values.all { it.isFinite() } }
        val detail = if (finite) "all finite" else "NaN or infinity in the output"
        return Check("a fully padded row is finite", finite, null, null, detail)
    }

    private fun vocabulary(): Check {
        val refused = listOf(-1, manifest.vocabSize).count { wrong ->
            val ids = first.row(0).getValue("input_ids").also { it[0] = wrong }
            try {
                run(first.row(0) + ("input_ids" to ids))
                false
            } catch (_: EdgebertException) {
                true
            }
        }
        return Check("ids outside the vocabulary are refused", refused == 2, null, null, "$refused of 2 refused")
    }

    /** Whether this machine's answers are told from damaged models', or the tolerance would be worth nothing. */
    private fun damaged(answers: List<Answers>): Check {
        val seen = golden.damaged.filterValues { outputs -> between(outputs, null) < tolerance.minSqnrDb - TWICE }
        val caught = seen.filterValues { outputs -> between(outputs, answers) < tolerance.minSqnrDb }
        val passed = seen.isNotEmpty() && caught.size == seen.size
        return Check("a damaged model is caught", passed, null, null, "caught: ${caught.keys.joinToString()}")
    }

    /** How far a damaged model is from torch, or from these answers, to the first batch. */
    private fun between(outputs: Map<String, Numbers>, answers: List<Answers>?): Double = outputs.keys.minOf { name ->
        val error = Error()
        for (i in 0 until first.rows) {
            val broken = outputs.getValue(name).floats(i)
            val (want, theirs) = kept(first, name, i, broken)
            if (answers == null) error.add(want, theirs) else error.add(theirs, kept(first, name, i, answers[i].getValue(name)).second)
        }
        error.sqnr
    }

    private fun sentences(): Check? {
        if (tokenizer == null || golden.sentences.isEmpty()) return null
        val wrong = golden.sentences.firstOrNull { tokenizer.encode(it.text, it.pair).ids.toList() != it.ids }
        val detail = if (wrong == null) "${golden.sentences.size} texts" else "other ids for '${wrong.text.take(40)}'"
        return Check("texts become the checkpoint's ids", wrong == null, null, null, detail)
    }

    private fun holds(sqnr: Double) = sqnr >= tolerance.minSqnrDb

    private fun decibels(value: Double) =
        if (value == Double.POSITIVE_INFINITY) "equal" else String.format(Locale.ROOT, "%.1f dB", value)

    private companion object {
        /** Decibels of an error twice as large. */
        val TWICE = 20 * log10(2.0)
    }
}

/** Logits that give a classifier's probabilities or scores; `as_logits` of Python's `edgebert/gate/parity.py`. */
private fun asLogits(name: String, output: FloatArray): FloatArray = when (name) {
    "probabilities" -> {
        val logs = output.map { ln(max(it.toDouble(), SURE)) }
        val mean = logs.average()
        FloatArray(logs.size) { (logs[it] - mean).toFloat() }
    }
    "scores" -> FloatArray(output.size) {
        val sure = output[it].toDouble().coerceIn(SURE, 1 - SURE)
        ln(sure / (1 - sure)).toFloat()
    }
    else -> output
}

/** Squares of what was due, and of its difference from what came. */
private class Error {
    var signal = 0.0
    var noise = 0.0
    var count = 0

    fun add(want: FloatArray, got: FloatArray) {
        for (i in want.indices) {
            val difference = want[i].toDouble() - got[i]
            signal += want[i].toDouble() * want[i]
            noise += difference * difference
        }
        count += want.size
    }

    val sqnr: Double get() = decibel(signal, noise)

    /** The root of the mean square of what was wanted. */
    val strength: Double get() = sqrt(signal / max(count, 1))
}

/** Signal to noise; infinite where there is no noise, minus infinity where it is no number. */
private fun decibel(signal: Double, noise: Double): Double = when {
    noise.isNaN() || noise.isInfinite() -> Double.NEGATIVE_INFINITY
    noise == 0.0 -> Double.POSITIVE_INFINITY
    signal > 0 -> 10 * log10(signal / noise)
    else -> Double.NEGATIVE_INFINITY
}
