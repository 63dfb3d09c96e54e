package dev.edgebert.app

import android.graphics.Insets
import android.os.Looper
import android.view.View
import android.view.WindowInsets
import android.widget.TextView
import org.json.JSONObject
import org.junit.Before
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

/** From typing to a shared measurement, on the real model in the real runtime. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [26, 34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class WholeWayTest {
    @Before
    fun bundleIsThere() {
        assertTrue(BuiltIn.folder.isDirectory)
    }

    private fun open(use: (AppWindow) -> Unit) = AppWindow().use { window ->
        window.awaitModel()
        use(window)
    }

    @Test
    fun `an answer comes while one types`() = open { window ->
        assertContains(window.text(R.id.waiting), "appears here")
        window.type(R.id.text, "wake me up at half past six tomorrow")
        window.awaitAnswer()
        assertEquals("alarm", window.text(R.id.headline))
        assertContains(window.text(R.id.facts), "tokens")
        assertFalse(window.isShown(R.id.cut))
        assertContains(window.words(), "and 145 more labels")
        window.type(R.id.text, "what is my balance")
        window.await("another answer") { window.text(R.id.headline) == "balance" }
        window.tap(R.id.clear)
        assertFalse(window.isShown(R.id.headline))
        assertEquals("", window.text(R.id.text))
    }

    @Test
    fun `only the last of several quick texts is answered`() = open { window ->
        for (text in listOf("wake", "wake me", "how is the weather", "flip a coin")) window.type(R.id.text, text)
        window.awaitAnswer()
        assertEquals("flip_coin", window.text(R.id.headline))
    }

    @Test
    fun `what cannot be answered is said in place`() = open { window ->
        window.type(R.id.text, "\u200B\u0000")
        window.awaitAnswer()
        assertContains(window.text(R.id.headline), "has no words")
        window.type(R.id.text, "alarm ".repeat(200))
        window.await("a cut") { window.isShown(R.id.cut) }
        assertContains(window.text(R.id.facts), "202 tokens")
    }

    @Test
    fun `a second text is asked for when wanted`() = open { window ->
        assertFalse(window.isShown(R.id.second))
        window.tap(R.id.add_second)
        assertTrue(window.isShown(R.id.second))
        window.type(R.id.text, "wake me at six")
        window.type(R.id.second, "or at seven")
        window.awaitAnswer()
        assertContains(window.text(R.id.facts), "10 tokens")
        window.rotate(AppWindow.LANDSCAPE)
        assertEquals("or at seven", window.text(R.id.second))
        assertTrue(window.isShown(R.id.second))
    }

    @Test
    fun `any screen is turned to any other shape`() = open { window ->
        for (tab in listOf(R.id.tab_about, R.id.tab_measure, R.id.tab_ask, R.id.tab_check)) {
            window.tap(tab)
            val shapes = listOf(AppWindow.LANDSCAPE, AppWindow.FOLDED_OUT, AppWindow.TABLET, AppWindow.PHONE)
            for (shape in shapes) window.rotate(shape)
            assertTrue(window.view<View>(tab).isSelected)
        }
    }

    @Test
    fun `rotation keeps the text, the answer, the tab and the model`() = open { window ->
        window.type(R.id.text, "wake me up at half past six tomorrow")
        window.awaitAnswer()
        val facts = window.text(R.id.facts)
        val model = window.session.opened
        val reply = window.session.reply
        for (turned in listOf(AppWindow.LANDSCAPE, AppWindow.PHONE, AppWindow.TABLET, "+night")) {
            window.rotate(turned)
            assertEquals("alarm", window.text(R.id.headline), turned)
            assertEquals("wake me up at half past six tomorrow", window.text(R.id.text))
            assertEquals(facts, window.text(R.id.facts), "it was answered anew")
        }
        window.tap(R.id.tab_about)
        window.rotate(AppWindow.PHONE)
        assertTrue(window.isShown(R.id.screen_about))
        assertTrue(model === window.session.opened && reply === window.session.reply)
    }

    @Test
    fun `an app that the system ended comes back with its text and answers it`() {
        val window = AppWindow()
        window.awaitModel()
        window.tap(R.id.add_second)
        window.type(R.id.text, "wake me at six")
        window.type(R.id.second, "or at seven")
        window.tap(R.id.tab_about)
        window.endedAndBack().use { back ->
            assertTrue(back.isShown(R.id.screen_about))
            back.awaitModel()
            back.tap(R.id.tab_ask)
            assertEquals("wake me at six", back.text(R.id.text))
            assertEquals("or at seven", back.text(R.id.second))
            back.awaitAnswer()
        }
    }

    @Test
    @Config(sdk = [34])
    fun `it keeps clear of bars, camera and keyboard`() = open { window ->
        for (shape in listOf(AppWindow.PHONE, AppWindow.LANDSCAPE)) {
            window.rotate(shape)
            val bars = WindowInsets.Builder()
                .setInsets(WindowInsets.Type.systemBars(), Insets.of(0, 50, 0, 90))
                .setInsets(WindowInsets.Type.displayCutout(), Insets.of(70, 0, 0, 0))
                .build()
            val root = window.view<View>(R.id.root)
            root.dispatchApplyWindowInsets(bars)
            window.idle()
            for (id in listOf(R.id.title, R.id.tab_ask, R.id.tab_about, R.id.text)) {
                val place = IntArray(2).also(window.view<View>(id)::getLocationInWindow)
                assertTrue(place[0] >= 70 && place[1] >= 50, "${place.toList()} is below a bar")
                assertTrue(place[1] + window.view<View>(id).height <= root.height - 90 || id == R.id.text)
            }
        }
    }

    @Test
    fun `it measures, keeps that over rotation, and shares rows`() = open { window ->
        window.tap(R.id.tab_measure)
        window.tap(R.id.screen_measure, R.string.measure_start)
        window.await("measured") { window.session.measuring is Work.Done }
        window.rotate(AppWindow.LANDSCAPE)
        assertContains(window.words(), "32 tokens")
        assertContains(window.words(), "64 tokens")
        assertContains(window.words(), "not a phone")
        window.tap(R.id.measure_result, R.string.measure_share)
        val shared = window.shared()
        File("../build/measure.json").apply { parentFile!!.mkdirs() }.writeText(shared)
        val rows = JSONObject(shared).getJSONArray("rows")
        assertEquals(2 * Phone().threadCounts.size, rows.length())
        for (i in 0 until rows.length()) {
            val row = rows.getJSONObject(i)
            val latency = row.getJSONObject("latency")
            assertEquals("measured-on-host", row.getString("how"))
            assertEquals(Timing.RUNS, latency.getInt("runs"))
            assertTrue(latency.getDouble("min_ms") > 0)
            assertTrue(latency.getDouble("min_ms") <= latency.getDouble("median_ms"))
            assertTrue(latency.getDouble("median_ms") <= latency.getDouble("p90_ms"))
            assertTrue(latency.getDouble("p90_ms") <= latency.getDouble("max_ms"))
            assertEquals("[1,150]", row.getJSONArray("outputs").getJSONObject(0).getString("shape"))
        }
    }

    @Test
    fun `a measurement is cancelled`() = open { window ->
        window.tap(R.id.tab_measure)
        window.session.measure()
        window.session.cancel()
        window.await("cancelled") { window.session.measuring is Work.Cancelled }
        assertContains(window.words(), "Cancelled.")
        window.tap(R.id.tab_ask)
        window.type(R.id.text, "wake me at six")
        window.awaitAnswer()
    }

    @Test
    fun `it checks this machine against torch`() = open { window ->
        window.tap(R.id.tab_check)
        window.tap(R.id.screen_check, R.string.check_start)
        window.await("checked", seconds = 180) { window.session.checking is Work.Done }
        assertContains(window.words(), "This phone answers right")
        assertContains(window.words(), "dB")
        window.rotate(AppWindow.LANDSCAPE)
        assertContains(window.words(), "This phone answers right")
        window.tap(R.id.check_result, R.string.check_share)
        assertContains(window.shared(), "This phone answers right\nPassed: ")
    }

    @Test
    fun `it tells whose the model is`() = open { window ->
        window.tap(R.id.tab_about)
        val words = window.words()
        val facts = listOf("squeezebert", "4,626,198", "model.tflite", "w8a8-dynamic", "alarm", "built in")
        for (fact in facts + listOf("CLINC150", "Apache License 2.0")) assertContains(words, fact)
    }

    @Test
    fun `the model is closed with the window`() {
        val window = AppWindow()
        window.awaitModel()
        val model = window.session.opened!!.edgebert
        window.close()
        Thread.sleep(100)
        org.robolectric.Shadows.shadowOf(Looper.getMainLooper()).idle()
        val refused = runCatching { model.classify("wake me") }.exceptionOrNull()
        assertContains(refused?.message.orEmpty(), "closed")
    }

    @Test
    fun `everything that can be tapped is named and large enough`() = open { window ->
        window.type(R.id.text, "wake me at six")
        window.awaitAnswer()
        for (tab in listOf(R.id.tab_ask, R.id.tab_measure, R.id.tab_check, R.id.tab_about)) {
            window.tap(tab)
            assertTrue(window.view<View>(tab).isSelected)
            for (view in AppWindow.all(window.view(R.id.root)).filter { it.isShown && it.isClickable }) {
                if (view is TextView && view.isTextSelectable) continue // a tap on it does nothing
                val words = listOf(view.contentDescription, (view as? TextView)?.text, (view as? TextView)?.hint)
                assertTrue(words.any { !it.isNullOrEmpty() }, "$view has no name")
                val least = 48 * view.resources.displayMetrics.density - 1
                assertTrue(view.height >= least && view.width >= least, "$view is ${view.width} x ${view.height}")
            }
        }
        assertEquals(View.ACCESSIBILITY_LIVE_REGION_POLITE, window.view<View>(R.id.headline).accessibilityLiveRegion)
    }
}
