package dev.edgebert.app

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.File
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue

/** Zips out of the system's picker: a good one takes the built-in bundle's place, a bad one does not. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [26, 34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class OtherBundlesTest {
    private fun AppWindow.openZip(bytes: ByteArray) {
        tap(R.id.tab_about)
        tap(R.id.screen_about, R.string.open_zip)
        pick(bytes)
        await("the zip is dealt with") { session.model !is Model.Opening }
    }

    private fun damaged(bytes: ByteArray) = bytes.also { it[it.size / 2] = (it[it.size / 2].toInt() xor 1).toByte() }

    private fun later(manifest: ByteArray) =
        String(manifest).replace(Regex("\"version\": [0-9]+"), "\"version\": 99").toByteArray()

    private fun folders(window: AppWindow) = File(window.activity.filesDir, "bundles").list().orEmpty().toList()

    @Test
    fun `a zip takes the place of the built-in bundle, is remembered, and is given up again`() {
        AppWindow().use { window ->
            window.awaitModel()
            val before = window.session.opened!!.edgebert
            window.openZip(BuiltIn.zip(top = "assistant/"))
            assertFalse(window.isShown(R.id.notice), window.words())
            assertContains(window.words(), "opened from a zip")
            assertContains(runCatching { before.classify("wake me") }.exceptionOrNull()?.message.orEmpty(), "closed")
            window.tap(R.id.tab_ask)
            window.type(R.id.text, "wake me at six")
            window.awaitAnswer()
            assertEquals("alarm", window.text(R.id.headline))
        }
        AppWindow().use { window ->
            window.awaitModel()
            assertEquals(1, folders(window).size)
            window.tap(R.id.tab_about)
            assertContains(window.words(), "opened from a zip")
            window.tap(R.id.screen_about, R.string.use_built_in)
            window.await("the built-in one") { window.session.opened?.folder == null && window.session.opened != null }
            assertContains(window.words(), "built in")
            assertEquals(emptyList(), folders(window))
        }
    }

    @Test
    fun `a damaged model, a missing file, another manifest, a tokenizer with an unknown part and a zip that leads elsewhere are refused`() {
        val good = BuiltIn.zip()
        val bad = mapOf(
            "model.tflite" to BuiltIn.zip { name, bytes -> if (name == "model.tflite") damaged(bytes) else bytes },
            "tokenizer.json" to BuiltIn.zip { name, bytes -> bytes.takeUnless { name == "tokenizer.json" } },
            "version" to BuiltIn.zip { name, bytes -> if (name == "manifest.json") later(bytes) else bytes },
            "Split" to BuiltIn.resealed("tokenizer.json") { it.replace("BertPreTokenizer", "Split") },
            "out of its folder" to BuiltIn.entries(listOf("../evil.json" to byteArrayOf(1))),
            "holds 2 bundles" to BuiltIn.entries(listOf("a", "b").map { "$it/manifest.json" to byteArrayOf(1) }),
            "no zip" to "not a zip".toByteArray(),
            "cannot be unpacked" to good.copyOf(good.size / 2),
            "more than a bundle can be" to BuiltIn.entries(listOf("manifest.json" to ByteArray(40 shl 20))),
        )
        AppWindow().use { window ->
            window.awaitModel()
            val before = window.session.opened
            for ((said, zip) in bad) {
                window.openZip(zip)
                assertTrue(window.isShown(R.id.notice), "$said was taken")
                assertContains(window.text(R.id.notice_text), said)
                assertTrue(before === window.session.opened, "the bundle before is gone after: $said")
                assertEquals(emptyList(), folders(window), said)
                assertFalse(File(window.activity.filesDir, "evil.json").exists())
            }
            window.rotate(AppWindow.LANDSCAPE)
            assertTrue(window.isShown(R.id.notice))
            window.tap(R.id.notice_close)
            assertFalse(window.isShown(R.id.notice))
            window.tap(R.id.tab_ask)
            window.type(R.id.text, "wake me at six")
            window.awaitAnswer()
            assertEquals("alarm", window.text(R.id.headline))
        }
    }
}
