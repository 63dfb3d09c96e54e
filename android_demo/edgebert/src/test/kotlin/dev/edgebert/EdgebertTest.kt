package dev.edgebert

import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

class EdgebertTest {
    @TempDir
    lateinit var place: File

    /** What opening a bundle that was changed says. */
    private fun refusal(change: (File) -> Unit): String {
        val bundle = Bundles.copy(place).also(change)
        return assertFailsWith<EdgebertException> { Edgebert.open(bundle) }.message!!
    }

    @Test
    fun `three lines from a text to its label`() {
        val label = Edgebert.open(Bundles.default).use { it.classify("wake me at six").label }
        assertEquals("alarm", label)
    }

    @Test
    fun `a damaged byte in any file is found`() {
        for (name in listOf("model.tflite", "tokenizer.json", "golden.npz")) {
            val said = refusal { bundle ->
                val file = File(bundle, name)
                file.writeBytes(file.readBytes().also { it[it.size / 2] = (it[it.size / 2] + 1).toByte() })
            }
            assertContains(said, "$name is not the file that was exported")
        }
    }

    @Test
    fun `a damaged byte in the manifest is found`() {
        val said = refusal { File(it, "manifest.json").run { writeText(readText().replace("0.97", "0.07")) } }
        assertContains(said, "damaged or was edited")
    }

    @Test
    fun `a missing file is named`() {
        assertContains(refusal { File(it, "tokenizer.json").delete() }, "has no tokenizer.json")
        assertContains(refusal { File(it, "model.tflite").delete() }, "has no model.tflite")
        assertContains(refusal { File(it, "manifest.json").delete() }, "is no bundle: it has no manifest.json")
    }

    @Test
    fun `a later version is refused by its number`() {
        val said = refusal { bundle -> Bundles.edit(bundle) { it.replace("\"version\": 5", "\"version\": 99") } }
        assertContains(said, "version 99; this library reads 5")
    }

    @Test
    fun `a manifest that is none is refused`() {
        for (text in listOf("", "[]", "{", "{}", "\u0000", "{\"format\": \"edgebert-bundle\", \"version\": 5}", "null")) {
            refusal { File(it, "manifest.json").writeText(text) }
        }
    }

    @Test
    fun `inputs without axes are refused`() {
        val said = refusal { bundle -> Bundles.edit(bundle) { it.replace(Regex("\"shape\": \\[[^]]*]"), "\"shape\": []") } }
        assertContains(said, "names no inputs with axes")
    }

    @Test
    fun `names that lead out of the bundle are refused`() {
        val said = refusal { bundle ->
            Bundles.edit(bundle) { it.replace("\"golden.npz\": {", "\"../golden.npz\": {") }
        }
        assertTrue("../golden.npz" in said || "does not list golden.npz" in said, said)
    }

    @Test
    fun `a tokenizer with a part that is not known is refused by its name`() {
        val said = refusal { bundle ->
            val file = File(bundle, "tokenizer.json")
            file.writeText(file.readText().replace("\"BertPreTokenizer\"", "\"Split\""))
            Bundles.list(bundle, "tokenizer.json")
        }
        assertContains(said, "Split")
    }

    @Test
    fun `a file for another runtime is refused before it is read`() {
        val said = refusal { bundle ->
            File(bundle, "model.tflite").renameTo(File(bundle, "model.pte"))
            Bundles.edit(bundle) { it.replace("model.tflite", "model.pte") }
        }
        assertContains(said, "this library runs .tflite and .onnx")
    }

    @Test
    fun `a model file of other bytes does not crash`() {
        val said = refusal { bundle ->
            File(bundle, "model.tflite").writeBytes(ByteArray(64) { it.toByte() })
            Bundles.list(bundle, "model.tflite")
        }
        assertContains(said, "does not run in TensorFlow Lite")
    }

    @Test
    fun `a model file whose offsets lead elsewhere does not crash`() {
        val random = java.util.Random(5)
        repeat(20) {
            val bundle = Bundles.copy(place)
            val file = File(bundle, "model.tflite")
            val bytes = file.readBytes()
            // The end has the tables; weights are most of the rest.
            repeat(200) { bytes[bytes.size - 1 - random.nextInt(20_000)] = random.nextInt().toByte() }
            file.writeBytes(bytes)
            Bundles.list(bundle, "model.tflite")
            assertFailsWith<EdgebertException> { Edgebert.open(bundle).use { it.classify("hello") } }
        }
    }

    @Test
    fun `threads share a model and get what one gets`() {
        val texts = List(40) { "set a timer for $it minutes and book a flight to rome" }
        Edgebert.open(Bundles.default).use { model ->
            val wanted = texts.map { model.classify(it) }
            val pool = Executors.newFixedThreadPool(4)
            val told = pool.invokeAll(texts.map { Callable { model.classify(it) } }).map { it.get() }
            pool.shutdown()
            assertEquals(wanted, told)
        }
    }

    @Test
    fun `closing while another thread asks ends in an answer or a sentence`() {
        val model = Edgebert.open(Bundles.default)
        val pool = Executors.newSingleThreadExecutor()
        val asking = pool.submit(
            Callable {
                var answers = 0
                assertFailsWith<EdgebertException> { while (true) model.classify("hello there").also { answers++ } } to answers
            },
        )
        Thread.sleep(50)
        model.close()
        model.close() // a second time does nothing
        assertContains(asking.get().first.message!!, "is closed")
        pool.shutdown()
    }

    @Test
    fun `another task's verb is refused`() {
        Edgebert.open(Bundles.default).use { model ->
            val said = assertFailsWith<EdgebertException> { model.embed("a text") }.message!!
            assertContains(said, "is for sequence-classification, and this is for sentence-embedding")
            assertContains(assertFailsWith<EdgebertException> { model.predict("a", "b", "c") }.message!!, "at most one")
        }
    }

    @Test
    fun `texts without words and ids without rows are refused`() {
        Edgebert.open(Bundles.default).use { model ->
            assertContains(assertFailsWith<EdgebertException> { model.classify(" \n") }.message!!, "has no words")
            for (ids in listOf(intArrayOf(-1), intArrayOf(model.manifest.vocabSize), IntArray(0), IntArray(65))) {
                assertFailsWith<EdgebertException> { model.raw(ids) }
            }
        }
    }

    @Test
    fun `a long text is cut and says so`() {
        Edgebert.open(Bundles.default).use { model ->
            val answer = model.classify("tell me a joke ".repeat(40))
            assertTrue(answer.truncated && answer.tokenCount > 64)
            assertTrue(!model.classify("tell me a joke").truncated)
        }
    }

    @Test
    fun `this machine passes the gate`() {
        Edgebert.open(Bundles.default).use { model ->
            val shares = ArrayList<Double>()
            val report = model.check { _, share -> shares += share }
            assertTrue(report.passed, report.checks.joinToString("\n"))
            assertTrue(report.checks.first().decibels!! > report.checks.first().least!!)
            assertEquals(shares.sorted(), shares)
            assertEquals(1.0, shares.last())
        }
    }

    @Test
    fun `raw takes ids and gives as many tokens`() {
        Edgebert.open(Bundles.default).use { model ->
            val logits = model.raw(model.encode("hello").ids).getValue("logits")
            assertEquals(listOf(1, model.manifest.labels.size), logits.shape.toList())
            assertEquals(model.classify("hello").logits, logits.values.toList())
        }
    }

    @Test
    fun `without several labels all scores are of one`() {
        Edgebert.open(Bundles.default).use { model ->
            val answer = model.classify("hello")
            assertEquals(1.0, answer.scores.sum(), 1e-9)
            assertEquals(answer.labels.first().label, answer.label)
            assertEquals(5, answer.labels.size)
            assertNull(model.manifest.reading.threshold)
        }
    }
}
