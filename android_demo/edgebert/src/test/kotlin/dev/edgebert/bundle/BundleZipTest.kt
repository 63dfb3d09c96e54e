package dev.edgebert.bundle

import dev.edgebert.EdgebertException
import org.junit.jupiter.api.io.TempDir
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse

class BundleZipTest {
    @TempDir
    lateinit var folder: File

    private val into get() = File(folder, "bundle")

    private fun zip(vararg entries: Pair<String, ByteArray?>): ByteArray {
        val out = ByteArrayOutputStream()
        ZipOutputStream(out).use { zip ->
            for ((name, content) in entries) {
                zip.putNextEntry(ZipEntry(name))
                if (content != null) zip.write(content)
            }
        }
        return out.toByteArray()
    }

    private fun unpack(zip: ByteArray, limits: Limits = Limits()) =
        BundleZip.unpack(ByteArrayInputStream(zip), into, limits)

    /** The sentence of a refusal, after which nothing may be left behind. */
    private fun refusal(zip: ByteArray, limits: Limits = Limits()): String {
        val message = assertFailsWith<EdgebertException> { unpack(zip, limits) }.message!!
        assertEquals(emptyList(), folder.list()!!.toList(), message)
        return message
    }

    private val manifest = "manifest.json" to "{}".toByteArray()
    private val model = "model.tflite" to Random(0).nextBytes(300_000)

    @Test
    fun `a bundle at the root is unpacked`() {
        unpack(zip(manifest, model))
        assertEquals(setOf("manifest.json", "model.tflite"), into.list()!!.toSet())
        assertContentEquals(model.second, File(into, "model.tflite").readBytes())
        assertEquals(listOf("bundle"), folder.list()!!.toList())
    }

    @Test
    fun `a bundle in the one top folder is unpacked, and what Finder adds is left out`() {
        unpack(
            zip(
                "assistant/" to null,
                "assistant/${manifest.first}" to manifest.second,
                "assistant/${model.first}" to model.second,
                "assistant/more/notes.txt" to "notes".toByteArray(),
                "assistant/.DS_Store" to byteArrayOf(1),
                "__MACOSX/assistant/._model.tflite" to byteArrayOf(1),
            ),
        )
        assertEquals(setOf("manifest.json", "model.tflite", "more"), into.list()!!.toSet())
        assertEquals("notes", File(into, "more/notes.txt").readText())
        assertEquals(listOf("bundle"), folder.list()!!.toList())
    }

    @Test
    fun `names that lead out of the folder are refused`() {
        val names = listOf(
            "../evil", "a/../../evil", "/etc/evil", "a//evil", "./evil", "a/..", "..", "..\\evil", "C:\\evil", "c:evil",
            "a/./b", "evil\u0000.json",
        )
        for (name in names) {
            assertContains(refusal(zip(manifest, name to byteArrayOf(1))), "which leads out of its folder")
        }
        assertFalse(File(folder.parentFile, "evil").exists())
    }

    @Test
    fun `several folders, other things beside a bundle, and no bundle are refused`() {
        val two = zip("a/manifest.json" to byteArrayOf(1), "b/manifest.json" to byteArrayOf(1))
        assertContains(refusal(two), "holds 2 bundles, a, b")
        assertContains(refusal(zip("a/manifest.json" to byteArrayOf(1), "b/x" to byteArrayOf(1))), "beside the bundle a")
        assertContains(refusal(zip(model)), "no manifest.json")
        assertContains(refusal(zip("a/b/manifest.json" to byteArrayOf(1))), "no manifest.json")
    }

    @Test
    fun `what is no zip is refused`() {
        assertContains(refusal("no zip at all".toByteArray()), "no zip")
        assertContains(refusal(ByteArray(0)), "no zip")
        assertContains(refusal(zip()), "no zip")
    }

    @Test
    fun `a zip that ends early or has damaged bytes is refused`() {
        val whole = zip(manifest, model)
        assertContains(refusal(whole.copyOf(whole.size / 2)), "cannot be unpacked")
        for (at in listOf(2_000, 20_000, 200_000)) {
            val damaged = whole.copyOf().also { it[at] = (it[at].toInt() xor 0x55).toByte() }
            assertContains(refusal(damaged), "cannot be unpacked")
        }
    }

    @Test
    fun `bombs are refused before they are large`() {
        val zeros = zip(manifest, "model.tflite" to ByteArray(40 shl 20))
        assertContains(refusal(zeros), "more than a bundle can be, at \"model.tflite\"")
        assertContains(refusal(zip(manifest, model), Limits(entryBytes = 100_000)), "more than a bundle can be")
        val halves = zip(manifest, "a" to model.second, "b" to model.second)
        assertContains(refusal(halves, Limits(totalBytes = 500_000)), "at \"b\"")
        val many = zip(*Array(201) { "file$it" to byteArrayOf(1) })
        assertContains(refusal(many), "more than 200 entries")
    }

    @Test
    fun `a folder that is there is left alone`() {
        into.mkdirs()
        File(into, "mine").writeText("mine")
        assertContains(assertFailsWith<EdgebertException> { unpack(zip(manifest)) }.message!!, "is there already")
        assertEquals("mine", File(into, "mine").readText())
    }

    @Test
    fun `what an interrupted unpacking left is replaced`() {
        File(folder, ".bundle.partial/old").mkdirs()
        unpack(zip(manifest))
        assertEquals(listOf("manifest.json"), into.list()!!.toList())
        assertEquals(listOf("bundle"), folder.list()!!.toList())
    }
}
