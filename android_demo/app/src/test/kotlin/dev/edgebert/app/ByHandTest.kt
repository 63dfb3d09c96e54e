package dev.edgebert.app

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import kotlin.test.assertContains
import kotlin.test.assertEquals

/**
 * The whole way by what is on the window alone: it names no class of the app's but the activity, and runs on the classes
 * that R8 leaves (`mvn verify`).
 */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class ByHandTest {
    @Test
    fun `asked, turned, measured, checked, and given other bundles`() = AppWindow().use { window ->
        window.awaitModel()
        window.type(R.id.text, "wake me up at half past six tomorrow")
        window.awaitAnswer()
        assertEquals("alarm", window.text(R.id.headline))
        window.rotate(AppWindow.LANDSCAPE)
        assertEquals("alarm", window.text(R.id.headline))

        window.tap(R.id.tab_measure)
        window.tap(R.id.screen_measure, R.string.measure_start)
        window.await("measured") { window.isShown(R.id.measure_result) }
        window.tap(R.id.measure_result, R.string.measure_share)
        assertContains(window.shared(), "\"latency\"")

        window.tap(R.id.tab_check)
        window.tap(R.id.screen_check, R.string.check_start)
        window.await("checked", seconds = 180) { "This phone answers right" in window.words() }

        window.tap(R.id.tab_about)
        window.tap(R.id.screen_about, R.string.open_zip)
        window.pick(BuiltIn.zip { name, bytes -> bytes.takeUnless { name == "tokenizer.json" } })
        window.await("refused") { window.isShown(R.id.notice) }
        assertContains(window.text(R.id.notice_text), "tokenizer.json")
        window.tap(R.id.screen_about, R.string.open_zip)
        window.pick(BuiltIn.zip(top = "assistant/"))
        window.await("taken") { "opened from a zip" in window.words() }
        window.tap(R.id.tab_ask)
        window.type(R.id.text, "what is my balance")
        window.await("another answer") { window.text(R.id.headline) == "balance" }
    }
}
