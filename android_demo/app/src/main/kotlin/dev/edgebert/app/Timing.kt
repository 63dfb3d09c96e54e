package dev.edgebert.app

import dev.edgebert.Edgebert
import dev.edgebert.bundle.Spec
import org.json.JSONArray
import org.json.JSONObject
import java.io.File
import java.io.IOException

/**
 * Times of one length on one number of threads.
 *
 * @property firstMs the first run, in which weights and memory are laid out.
 * @property sorted times of the runs that count, in milliseconds.
 * @property shapes of the outputs, by name.
 */
internal class Timing(
    val length: Int,
    val threads: Int,
    val firstMs: Double,
    val sorted: List<Double>,
    val shapes: Map<String, List<Int>>,
) {
    val median: Double get() = quantile(0.5)
    val p90: Double get() = quantile(0.9)

    /** Between neighbours in proportion. */
    fun quantile(share: Double): Double {
        val place = share * (sorted.size - 1)
        val low = place.toInt()
        val high = minOf(low + 1, sorted.size - 1)
        return sorted[low] + (sorted[high] - sorted[low]) * (place - low)
    }

    companion object {
        const val WARM_UP = 3
        const val RUNS = 20

        /** Runs a model on as many ids as [length] says, [before] each run asking whether to go on. */
        fun of(model: Edgebert, length: Int, threads: Int, before: () -> Unit): Timing {
            val ids = IntArray(length) { (it * 7919 + 1) % model.manifest.vocabSize }
            val shapes = LinkedHashMap<String, List<Int>>()
            fun timed(): Double {
                before()
                val start = System.nanoTime()
                val outputs = model.raw(ids)
                val took = (System.nanoTime() - start) / 1e6
                for ((name, output) in outputs) shapes[name] = output.shape.toList()
                return took
            }
            val first = timed()
            repeat(WARM_UP - 1) { timed() }
            return Timing(length, threads, first, List(RUNS) { timed() }.sorted(), shapes)
        }
    }
}

/** What was measured of a bundle, as `edgebert profile --json` prints it and `edgebert profile --from` reads it. */
internal class Measured(private val opened: Opened, private val phone: Phone, val timings: List<Timing>, app: String) {
    private val manifest = opened.edgebert.manifest
    private val peak = peakBytes()
    private val versions = JSONObject().put("edgebert", app).put(
        opened.edgebert.runtime.substringBeforeLast(' ').lowercase().replace(' ', '-'),
        opened.edgebert.runtime.substringAfterLast(' '),
    )

    fun toJson(): String = JSONObject()
        .put("rows", JSONArray(timings.map { row(it) }))
        .put("operators", JSONArray())
        .put("calibrations", JSONArray())
        .toString()

    private fun row(timing: Timing): JSONObject = JSONObject()
        .put("file", opened.name)
        .put("target", manifest.target)
        .put("recipe", manifest.recipe)
        .put("length", timing.length)
        .put("file_bytes", manifest.files.getValue(manifest.modelFile).bytes)
        .put("delegated", opened.delegated ?: JSONObject.NULL)
        .put("ratio", JSONObject.NULL)
        .put("layers", JSONObject.NULL)
        .put("device", phone.name.take(80))
        .put("how", if (phone.isReal) "measured-on-phone" else "measured-on-host")
        .put("runtime", manifest.target)
        .put("threads", timing.threads)
        .put("entry", if (manifest.target == "tflite") "tokens_${timing.length}" else JSONObject.NULL)
        .put("inputs", JSONArray(manifest.inputs.map { spec(it, listOf(1, timing.length)) }))
        .put("outputs", JSONArray(manifest.outputs.map { spec(it, timing.shapes.getValue(it.name)) }))
        .put("load_ms", JSONObject.NULL) // opening a bundle also checks and reads all else in it
        .put("first_ms", timing.firstMs)
        .put("latency", latency(timing))
        .put("peak_bytes", peak ?: JSONObject.NULL)
        .put("versions", versions)
        .put("machine", phone.toJson())
        .put("notes", JSONArray(listOf("by the app; memory is the whole app's")))
        .put("estimate", JSONObject.NULL)

    private fun spec(spec: Spec, shape: List<Int>): JSONObject =
        JSONObject().put("name", spec.name).put("dtype", spec.dtype).put("shape", JSONArray(shape))

    private fun latency(timing: Timing): JSONObject = JSONObject()
        .put("median_ms", timing.median)
        .put("p90_ms", timing.p90)
        .put("min_ms", timing.sorted.first())
        .put("max_ms", timing.sorted.last())
        .put("spread", if (timing.median > 0) (timing.p90 - timing.quantile(0.1)) / timing.median else 0.0)
        .put("runs", timing.sorted.size)

    private fun peakBytes(): Long? = try {
        File("/proc/self/status").useLines { lines -> lines.firstOrNull { it.startsWith("VmHWM") } }
            ?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
    } catch (_: IOException) {
        null
    }
}
