package dev.edgebert.engines

import dev.edgebert.EdgebertException
import dev.edgebert.bundle.Manifest
import java.io.Closeable
import java.nio.ByteBuffer

/** Numbers in row-major order, with their shape. */
public class Tensor(public val shape: IntArray, public val values: FloatArray) {
    /** Row [i] of the first axis. */
    public fun row(i: Int): Tensor {
        val size = values.size / shape[0]
        return Tensor(shape.copyOfRange(1, shape.size), values.copyOfRange(i * size, (i + 1) * size))
    }
}

/** One open model file. Not to be used by two threads at once: [dev.edgebert.Edgebert] sees to it. */
public interface Engine : Closeable {
    /** The runtime and its version, as it tells it itself. */
    public val runtime: String

    /**
     * Answers one row.
     *
     * @param inputs a row of each of the file's inputs by its name, all of one of the file's lengths.
     * @return outputs by name, the first axis a batch of one.
     */
    public fun run(inputs: Map<String, IntArray>): Map<String, Tensor>
}

/** A kind of engine: the files that it takes, a class that is there when its library is, and how it opens one. */
private class Kind(
    val suffix: String,
    val library: String,
    val needs: String,
    val open: (ByteBuffer, Manifest, Int) -> Engine,
)

/** Those that are known, the first that an app has is taken. */
private val KINDS = listOf(
    Kind("tflite", "org.bytedeco.tensorflowlite.Interpreter", "org.bytedeco:tensorflow-lite", ::TensorFlowLite),
    Kind("tflite", "org.tensorflow.lite.Interpreter", "com.google.ai.edge.litert:litert", ::LiteRt),
    Kind("onnx", "ai.onnxruntime.OrtEnvironment", "com.microsoft.onnxruntime:onnxruntime-android", ::OnnxRuntime),
)

/** Engines that open model files. */
public object Engines {
    /**
     * Opens a model file by the first engine that takes it and is there.
     *
     * @param model the file, mapped, or read into a direct buffer.
     * @param threads that it may use.
     * @throws EdgebertException no engine takes it, or none that does is in the app.
     */
    public fun open(model: ByteBuffer, manifest: Manifest, threads: Int): Engine {
        val suffix = manifest.modelFile.substringAfterLast('.', "")
        val fitting = KINDS.filter { it.suffix == suffix }
        if (fitting.isEmpty()) {
            throw EdgebertException(
                "${manifest.modelFile} is a file for ${manifest.target}; this library runs .tflite and .onnx: " +
                    "export with --target tflite or onnx.",
            )
        }
        val kind = fitting.firstOrNull { isThere(it.library) } ?: throw EdgebertException(
            "${manifest.modelFile} needs ${fitting.joinToString(" or ") { it.needs }}, which the app does not have: add it to its dependencies.",
        )
        return kind.open(model, manifest, threads)
    }

    private fun isThere(name: String): Boolean =
        try {
            Class.forName(name, false, Engine::class.java.classLoader)
            true
        } catch (_: ClassNotFoundException) {
            false
        }
}
