package dev.edgebert.app

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.net.Uri
import android.os.Bundle
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.TextView
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import java.io.ByteArrayInputStream
import java.io.File
import java.time.Duration
import kotlin.test.assertNotNull
import kotlin.test.fail

/** The app on a phone with [qualifiers], worked as a person works it. */
internal class AppWindow(qualifiers: String = PHONE, fontScale: Float = 1f, saved: Bundle? = null) : AutoCloseable {
    private val controller: ActivityController<MainActivity>

    @Volatile private var crash: Throwable? = null

    init {
        Thread.setDefaultUncaughtExceptionHandler { _, error -> crash = error }
        RuntimeEnvironment.setQualifiers(qualifiers)
        RuntimeEnvironment.setFontScale(fontScale)
        val built = Robolectric.buildActivity(MainActivity::class.java)
        controller = if (saved == null) built.setup() else built.setup(saved)
    }

    val activity: MainActivity get() = controller.get()

    val session: Session get() = activity.session

    fun <T : View> view(id: Int): T = assertNotNull(activity.findViewById(id), "a view is missing")

    fun text(id: Int): String = view<TextView>(id).text.toString()

    fun isShown(id: Int): Boolean = view<View>(id).isShown

    /** All that can be read on the window, from top to bottom. */
    fun words(root: View = view(R.id.root)): String = buildList { collect(root) }.joinToString("\n")

    fun type(id: Int, text: String) = view<EditText>(id).run {
        setText(text)
        setSelection(text.length)
    }

    fun tap(id: Int) {
        val view = view<View>(id)
        if (!view.isShown || !view.isEnabled) fail("${name(id)} cannot be tapped")
        view.performClick()
        idle()
    }

    /** Taps the button inside of [within] that says [text]. */
    fun tap(within: Int, text: Int) {
        val wanted = activity.getString(text)
        val buttons = all(view(within)).filterIsInstance<TextView>().filter { it.isShown && it.isClickable }
        buttons.single { it.text.toString() == wanted }.performClick()
        idle()
    }

    fun rotate(qualifiers: String) {
        RuntimeEnvironment.setQualifiers(qualifiers)
        controller.configurationChange(RuntimeEnvironment.getApplication().resources.configuration).visible()
        idle()
    }


    /** Ends the app as the system does to make room, and starts it again from what it kept. */
    fun endedAndBack(): AppWindow {
        val kept = Bundle()
        controller.saveInstanceState(kept)
        close()
        return AppWindow(saved = kept)
    }

    /** Picks a zip of [bytes] in the system's picker. */
    fun pick(bytes: ByteArray) {
        val uri = Uri.parse("content://files/${bytes.size}-${bytes.contentHashCode()}.zip")
        shadowOf(activity.contentResolver).registerInputStreamSupplier(uri) { ByteArrayInputStream(bytes) }
        val asked = assertNotNull(shadowOf(activity).nextStartedActivityForResult, "no picker was opened")
        shadowOf(activity).receiveResult(asked.intent, Activity.RESULT_OK, Intent().setData(uri))
    }

    /** The text that was shared last. */
    fun shared(): String {
        val chooser = assertNotNull(shadowOf(activity).nextStartedActivity, "nothing was shared")
        @Suppress("DEPRECATION")
        return chooser.getParcelableExtra<Intent>(Intent.EXTRA_INTENT)!!.getStringExtra(Intent.EXTRA_TEXT)!!
    }

    /** Lets the model's thread and the main one work until something holds. */
    fun await(what: String, seconds: Int = 30, holds: () -> Boolean) {
        val end = System.nanoTime() + seconds * 1_000_000_000L
        while (true) {
            idle()
            crash?.let { throw AssertionError("the app crashed", it) }
            if (holds()) return
            if (System.nanoTime() > end) fail("not after $seconds s: $what; the window says:\n${words()}")
            Thread.sleep(5)
        }
    }

    fun awaitModel() = await("a model is open") { text(R.id.model).contains("·") }

    fun awaitAnswer() = await("an answer") { isShown(R.id.headline) }

    /** Draws the window into `android_demo/build/screenshots`. */
    fun picture(name: String) {
        idle()
        val root = activity.window.decorView
        val picture = Bitmap.createBitmap(root.width, root.height, Bitmap.Config.ARGB_8888)
        root.draw(Canvas(picture))
        val file = File("../build/screenshots/$name.png")
        file.parentFile!!.mkdirs()
        file.outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, 100, it) }
    }

    /** Views whose text is cut off or that lie outside of the window's width. */
    fun cutOff(): List<String> = all(view(R.id.root)).filterIsInstance<TextView>()
        .filter { view ->
            if (!view.isShown || view.text.isEmpty()) return@filter false
            val layout = view.layout ?: return@filter false
            val place = IntArray(2).also(view::getLocationInWindow)
            val room = view.height - view.compoundPaddingTop - view.compoundPaddingBottom
            val ellipsis = (0 until layout.lineCount).any { layout.getEllipsisCount(it) > 0 }
            layout.height > room || ellipsis || place[0] < 0 || place[0] + view.width > activity.window.decorView.width
        }.map { it.text.toString() }

    override fun close() {
        controller.pause().stop().destroy()
        idle()
    }

    fun idle() = shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(200))

    private fun name(id: Int) = activity.resources.getResourceEntryName(id)

    private fun MutableList<String>.collect(view: View) {
        for (one in all(view)) if (one is TextView && one.isShown && one.text.isNotEmpty()) add(one.text.toString())
    }

    companion object {
        const val PHONE = "w360dp-h760dp-port-notnight-xhdpi"
        const val LANDSCAPE = "w760dp-h360dp-land-notnight-xhdpi"
        const val TABLET = "sw800dp-w1280dp-h800dp-land-notnight-hdpi"
        const val FOLDED_OUT = "sw600dp-w600dp-h960dp-port-notnight-hdpi"

        /** A view and all below it. */
        fun all(view: View): List<View> = listOf(view) +
            if (view is ViewGroup) (0 until view.childCount).flatMap { all(view.getChildAt(it)) } else emptyList()
    }
}
