package dev.edgebert.app

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.File
import java.util.Properties
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** The app as it is built, before a bundle is put into it. */
class BareRunner(test: Class<*>) : RobolectricTestRunner(test) {
    override fun getBuildSystemApiProperties(): Properties = Properties().apply {
        putAll(super.getBuildSystemApiProperties()!!)
        val apk = File(getProperty("android_resource_apk")).resolveSibling("resources.apk")
        check(apk.isFile) { "$apk is missing" }
        setProperty("android_resource_apk", apk.path)
    }
}

@RunWith(BareRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class NoBundleTest {
    @Test
    fun `it says how to get one, and takes one from a zip`() = AppWindow().use { window ->
        window.await("no model") { window.isShown(R.id.screen_none) }
        assertContains(window.words(), "edgebert app BUNDLE --out app.apk")
        window.picture("none-phone")
        window.tap(R.id.tab_about)
        assertContains(window.words(), "Apache License 2.0")
        window.tap(R.id.tab_check)
        window.tap(R.id.none_open)
        window.pick(BuiltIn.zip())
        window.await("a model") { window.session.opened != null }
        assertTrue(window.isShown(R.id.screen_check))
        window.tap(R.id.tab_ask)
        window.type(R.id.text, "wake me at six")
        window.awaitAnswer()
        assertEquals("alarm", window.text(R.id.headline))
    }
}
