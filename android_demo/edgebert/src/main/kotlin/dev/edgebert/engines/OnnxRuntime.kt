package dev.edgebert.engines

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import dev.edgebert.EdgebertException
import dev.edgebert.bundle.Manifest
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer

/** ONNX Runtime by its Java interface, which is the same on phones. It copies the model. */
internal class OnnxRuntime(file: ByteBuffer, private val manifest: Manifest, threads: Int) : Engine {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession = refusing {
        OrtSession.SessionOptions().use { options ->
            options.setIntraOpNumThreads(threads)
            options.setInterOpNumThreads(1)
            options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL) // failures come as exceptions
            if (saturates()) options.addConfigEntry("session.x64quantprecision", "1")
            environment.createSession(file, options)
        }
    }

    override val runtime: String = "ONNX Runtime ${environment.version}"

    override fun run(inputs: Map<String, IntArray>): Map<String, Tensor> = refusing {
        val given = inputs.mapValues { (name, row) -> tensor(name, row) }
        try {
            session.run(given).use { results ->
                manifest.outputs.associate { it.name to read(results.get(it.name).orElse(null) as OnnxTensor) }
            }
        } finally {
            given.values.forEach(OnnxTensor::close)
        }
    }

    private fun tensor(name: String, row: IntArray): OnnxTensor {
        val spec = manifest.inputs.first { it.name == name }
        val shape = LongArray(spec.shape.size) { 1 } // a row, of one choice where the file takes several
        shape[shape.size - 1] = row.size.toLong()
        if (spec.dtype == "int32") {
            return OnnxTensor.createTensor(environment, IntBuffer.wrap(row), shape)
        }
        return OnnxTensor.createTensor(environment, LongBuffer.wrap(LongArray(row.size) { row[it].toLong() }), shape)
    }

    private fun read(value: OnnxTensor): Tensor {
        val shape = value.info.shape
        val numbers = value.floatBuffer // a copy, in float also where the file answers in half
        return Tensor(IntArray(shape.size) { shape[it].toInt() }, FloatArray(numbers.remaining()).also(numbers::get))
    }

    private fun <T> refusing(action: () -> T): T =
        try {
            action()
        } catch (error: OrtException) {
            throw EdgebertException(
                "${manifest.modelFile} does not run in ONNX Runtime: ${error.message?.lines()?.first()}. Export the " +
                    "bundle again.",
                error,
            )
        }

    override fun close() {
        session.close() // the environment is the process's
    }

    /** Whether this processor adds products of bytes in 16 bits: x86 without VNNI, see Python's `runtimes/onnx`. */
    private fun saturates(): Boolean {
        if (System.getProperty("os.arch") !in listOf("amd64", "x86_64")) return false
        return try {
            val flags = File("/proc/cpuinfo").readText().split(Regex("\\s+")).toSet()
            "avx_vnni" !in flags && "avx512_vnni" !in flags
        } catch (_: IOException) {
            true
        }
    }
}
