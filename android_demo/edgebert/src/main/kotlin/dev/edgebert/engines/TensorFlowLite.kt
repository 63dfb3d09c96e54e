package dev.edgebert.engines

import dev.edgebert.EdgebertException
import dev.edgebert.bundle.Manifest
import org.bytedeco.javacpp.BytePointer
import org.bytedeco.javacpp.FloatPointer
import org.bytedeco.javacpp.IntPointer
import org.bytedeco.javacpp.Pointer
import org.bytedeco.tensorflowlite.BuiltinOpResolverWithXNNPACK
import org.bytedeco.tensorflowlite.FlatBufferModel
import org.bytedeco.tensorflowlite.FlatBufferModelBase
import org.bytedeco.tensorflowlite.Interpreter
import org.bytedeco.tensorflowlite.InterpreterBuilder
import org.bytedeco.tensorflowlite.SignatureRunner
import org.bytedeco.tensorflowlite.TfLiteTensor
import org.bytedeco.tensorflowlite.global.tensorflowlite
import java.nio.ByteBuffer

/**
 * TensorFlow Lite by its C++ interface, `org.bytedeco:tensorflow-lite`: the C one runs without XNNPACK, many times slower.
 * A runner for each length is made when that length is first asked for.
 */
internal class TensorFlowLite(file: ByteBuffer, private val manifest: Manifest, threads: Int) : Engine {
    // The runtime reads the file where it is mapped. This holds the buffer until it is closed: a field that nothing reads
    // is taken away by R8, and the file's memory with it while the model still answers.
    private val bytes = BytePointer(file)
    private val model: FlatBufferModel
    private val resolver = BuiltinOpResolverWithXNNPACK()
    private val interpreter = Interpreter(null as Pointer?)
    private val runners = HashMap<Int, SignatureRunner>()

    init {
        model = FlatBufferModelBase.VerifyAndBuildFromBuffer(bytes, file.remaining().toLong())
            ?: throw refused("it is no whole .tflite file")
        val builder = InterpreterBuilder(model, resolver)
        val status = builder.apply(interpreter, threads)
        builder.close()
        if (status != OK) throw refused("it does not know an operator in it, or the file is damaged")
    }

    override val runtime: String = "TensorFlow Lite ${tensorflowlite.TfLiteVersion().string}"

    override fun run(inputs: Map<String, IntArray>): Map<String, Tensor> {
        val length = inputs.values.first().size
        val runner = runners.getOrPut(length) { runner(length) }
        for ((name, row) in inputs) IntPointer(data(runner.input_tensor(name), 4L * row.size, name)).put(row, 0, row.size)
        if (runner.Invoke() != OK) throw refused("it failed on this input")
        return manifest.outputs.associate { it.name to read(runner.output_tensor(it.name), it.name) }
    }

    private fun runner(length: Int): SignatureRunner {
        val runner = interpreter.GetSignatureRunner("tokens_$length")
        if (runner == null || runner.isNull) throw refused("the file has no entry for $length tokens")
        if (runner.AllocateTensors() != OK) throw refused("there is no memory for $length tokens, or the file is damaged")
        return runner
    }

    private fun read(tensor: TfLiteTensor?, name: String): Tensor {
        val shape = IntArray(if (tensor == null) 0 else tensorflowlite.TfLiteTensorNumDims(tensor)) {
            tensorflowlite.TfLiteTensorDim(tensor, it)
        }
        val values = FloatArray(shape.fold(1, Int::times))
        FloatPointer(data(tensor, 4L * values.size, name)).get(values, 0, values.size)
        return Tensor(shape, values)
    }

    /** A tensor's memory, of as many bytes. */
    private fun data(tensor: TfLiteTensor?, bytes: Long, name: String): Pointer {
        if (tensor == null || tensorflowlite.TfLiteTensorByteSize(tensor) != bytes) {
            throw refused("the file's $name is not what its manifest says")
        }
        return tensorflowlite.TfLiteTensorData(tensor)
    }

    private fun refused(why: String) =
        EdgebertException("${manifest.modelFile} does not run in TensorFlow Lite: $why. Export the bundle again.")

    override fun close() {
        runners.clear() // the interpreter's own
        interpreter.close()
        resolver.close()
        model.close()
        bytes.close()
    }

    private companion object {
        /** kTfLiteOk. */
        const val OK = 0
    }
}
