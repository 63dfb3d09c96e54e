package dev.edgebert.app

import org.junit.Assume.assumeTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.File
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/**
 * Every task is asked something. The zips are those of the folder that `-Dedgebert.bundles` names; test_app.py exports
 * them and sees to it that this is not left out.
 */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class TasksTest {
    private val context = "Angela Merkel went to New York in the red house. It stands on a hill by the sea."

    @Test
    fun `every task answers`() {
        val folder = System.getProperty("edgebert.bundles")
        assumeTrue("no -Dedgebert.bundles=FOLDER with zips of bundles; test_app.py gives it", folder != null)
        val zips = File(folder!!).listFiles()!!.filter { it.extension == "zip" }.sorted()
        assertTrue(zips.isNotEmpty(), "$folder holds no zips")
        AppWindow().use { window ->
            window.awaitModel()
            for (zip in zips) asked(window, zip)
        }
    }

    private fun asked(window: AppWindow, zip: File) {
        window.tap(R.id.tab_about)
        window.tap(R.id.screen_about, R.string.open_zip)
        window.pick(zip.readBytes())
        window.await("${zip.name} is dealt with") { window.session.model !is Model.Opening }
        assertEquals("", window.text(R.id.notice_text), zip.name)
        window.tap(R.id.tab_ask)
        window.tap(R.id.clear.takeIf(window::isShown) ?: R.id.tab_ask)
        val task = window.session.opened!!.task
        question(window, task)
        window.await("${zip.name} answers") { window.session.reply != null && window.isShown(R.id.headline) }
        assertEquals(null, window.session.reply!!.error, zip.name)
        assertContains(window.text(R.id.facts), "token", message = zip.name)
        window.picture("task-${zip.nameWithoutExtension}")
        assertEquals(emptyList(), window.cutOff(), zip.name)
        more(window, task, zip.name)
    }

    private fun question(window: AppWindow, task: Task) {
        when (task) {
            Task.FILL -> {
                window.type(R.id.text, "the red ")
                window.tap(R.id.insert_mask)
                assertContains(window.text(R.id.text), "[MASK]")
            }
            Task.ANSWER -> {
                window.type(R.id.text, "Where is it?")
                assertTrue(window.isShown(R.id.waiting))
                window.type(R.id.second, context)
            }
            Task.CHOOSE -> {
                window.type(R.id.text, "the red")
                window.type(R.id.second, "house\n\n  hill by the sea \n")
            }
            else -> window.type(R.id.text, context)
        }
    }

    /** What a task offers beside its first answer. */
    private fun more(window: AppWindow, task: Task, zip: String) {
        when (task) {
            Task.WRITE -> {
                window.tap(R.id.write_on)
                window.await("$zip writes on") { window.session.reply?.answer is dev.edgebert.Generated }
                val written = window.words()
                window.rotate(AppWindow.LANDSCAPE)
                assertEquals(written.lines().toSet(), window.words().lines().toSet())
                window.rotate(AppWindow.PHONE)
            }
            Task.EMBED -> {
                window.type(R.id.second, "the red house")
                window.await("$zip compares") { window.session.reply?.answer is dev.edgebert.Similarity }
            }
            Task.ANSWER -> {
                window.tap(R.id.may_be_none)
                window.await("$zip may have none") { window.session.reply?.question?.mayBeNone == true }
            }
            Task.CHOOSE -> {
                window.type(R.id.second, "one alone")
                window.await("$zip refuses") { window.session.reply?.error != null }
                assertContains(window.text(R.id.headline), "1 choices came")
            }
            else -> Unit
        }
    }
}
