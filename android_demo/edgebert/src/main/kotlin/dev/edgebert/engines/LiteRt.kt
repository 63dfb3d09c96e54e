package dev.edgebert.engines

import dev.edgebert.EdgebertException
import dev.edgebert.bundle.Manifest
import org.tensorflow.lite.Interpreter
import java.nio.ByteBuffer
import java.nio.FloatBuffer

/**
 * LiteRT's own `Interpreter`, for apps that have it already. Compiled against its interface; it has native code for
 * phones alone, and no test here runs it.
 */
internal class LiteRt(file: ByteBuffer, private val manifest: Manifest, threads: Int) : Engine {
    private val interpreter = refusing { Interpreter(file, Interpreter.Options().setNumThreads(threads)) }

    override val runtime: String = "LiteRT"

    override fun run(inputs: Map<String, IntArray>): Map<String, Tensor> = refusing {
        val key = "tokens_${inputs.values.first().size}"
        val outputs = manifest.outputs.associate { spec ->
            val shape = interpreter.getOutputTensorFromSignature(spec.name, key).shape()
            spec.name to Tensor(shape, FloatArray(shape.fold(1, Int::times)))
        }
        val buffers = outputs.mapValues { (_, tensor) -> FloatBuffer.wrap(tensor.values) }
        interpreter.runSignature(inputs.mapValues { (_, row) -> arrayOf(row) }, buffers, key)
        outputs
    }

    private fun <T> refusing(action: () -> T): T =
        try {
            action()
        } catch (error: RuntimeException) { // it throws IllegalArgumentException and IllegalStateException
            throw EdgebertException(
                "${manifest.modelFile} does not run in LiteRT: ${error.message?.lines()?.first()}. Export the bundle again.",
                error,
            )
        }

    override fun close() {
        interpreter.close()
    }
}
