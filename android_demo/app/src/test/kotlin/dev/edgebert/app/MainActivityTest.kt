package dev.edgebert.app

import android.widget.EditText
import kotlin.test.Test
import kotlin.test.assertEquals
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [26, 34])
class MainActivityTest {
    @Test
    fun `the window has a field`() {
        val activity = Robolectric.setupActivity(MainActivity::class.java)
        val field = activity.findViewById<EditText>(R.id.text)
        field.setText("wake me at six")
        assertEquals("wake me at six", field.text.toString())
        val bundle = System.getProperty("edgebert.bundle")!!
        if (java.io.File(bundle, "manifest.json").exists()) activity.assets.open("bundle/manifest.json").close()
    }
}
