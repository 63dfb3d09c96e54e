package dev.edgebert.app

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import kotlin.test.assertEquals

/** Pictures of all screens, in `android_demo/build/screenshots`, on which no text may be cut off. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class ScreenshotsTest {
    /** Draws the given screens after a question, a measurement and a check where those are shown. */
    private fun draw(device: String, qualifiers: String, screens: List<String>, fontScale: Float = 1f) =
        AppWindow(qualifiers, fontScale).use { window ->
            window.awaitModel()
            window.type(R.id.text, "wake me up at half past six tomorrow")
            window.awaitAnswer()
            for (screen in screens) {
                when (screen) {
                    "ask" -> window.tap(R.id.tab_ask)
                    "measure" -> measure(window)
                    "check" -> check(window)
                    "about" -> window.tap(R.id.tab_about)
                }
                window.picture("$screen-$device")
                assertEquals(emptyList(), window.cutOff(), "cut off on $screen-$device")
            }
        }

    private fun measure(window: AppWindow) {
        window.tap(R.id.tab_measure)
        window.tap(R.id.screen_measure, R.string.measure_start)
        window.await("measured") { window.session.measuring is Work.Done }
    }

    private fun check(window: AppWindow) {
        window.tap(R.id.tab_check)
        window.tap(R.id.screen_check, R.string.check_start)
        window.await("checked", seconds = 180) { window.session.checking is Work.Done }
    }

    private fun dark(qualifiers: String) = qualifiers.replace("notnight", "night")

    private val all = listOf("ask", "measure", "check", "about")

    @Test
    fun `a phone in the light`() = draw("phone", AppWindow.PHONE, all)

    @Test
    fun `a phone in the dark`() = draw("phone-dark", dark(AppWindow.PHONE), all)

    @Test
    fun `a phone on its side`() = draw("landscape", AppWindow.LANDSCAPE, listOf("ask", "measure"))

    @Test
    fun `a tablet`() = draw("tablet", AppWindow.TABLET, all)

    @Test
    fun `a tablet in the dark`() = draw("tablet-dark", dark(AppWindow.TABLET), listOf("ask", "check"))

    @Test
    fun `a foldable, open`() = draw("foldable", AppWindow.FOLDED_OUT, listOf("ask", "measure"))

    @Test
    fun `letters twice as large`() = draw("large-letters", AppWindow.PHONE, all, fontScale = 2f)

    @Test
    fun `from right to left`() = draw("right-to-left", "ar-ldrtl-" + AppWindow.PHONE, all)
}
