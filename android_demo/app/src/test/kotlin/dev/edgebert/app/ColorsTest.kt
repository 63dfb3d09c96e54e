package dev.edgebert.app

import android.content.Context
import android.graphics.Color
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config
import kotlin.math.max
import kotlin.math.min
import kotlin.test.assertTrue

/** Text on its ground has the contrast that WCAG asks for, in the light and in the dark. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
class ColorsTest {
    private val pairs = listOf(
        R.color.ink to R.color.background, R.color.ink to R.color.surface, R.color.ink to R.color.field,
        R.color.ink_soft to R.color.background, R.color.ink_soft to R.color.surface, R.color.ink_soft to R.color.field,
        R.color.ink_soft to R.color.track, R.color.accent to R.color.surface, R.color.accent to R.color.accent_soft,
        R.color.on_accent to R.color.accent, R.color.good to R.color.good_soft, R.color.good to R.color.surface,
        R.color.bad to R.color.bad_soft, R.color.bad to R.color.surface,
        R.color.ink to R.color.mark_1, R.color.ink to R.color.mark_2, R.color.ink to R.color.mark_3,
        R.color.ink to R.color.mark_4, R.color.ink to R.color.mark_5, R.color.ink to R.color.mark_6,
    )

    @Test
    fun `contrast is 4,5 at least`() {
        for (qualifier in listOf("+notnight", "+night")) {
            RuntimeEnvironment.setQualifiers(qualifier)
            val context: Context = RuntimeEnvironment.getApplication()
            for ((text, ground) in pairs) {
                val (one, other) = listOf(text, ground).map { Color.luminance(context.getColor(it)) + 0.05f }
                val contrast = max(one, other) / min(one, other)
                val names = listOf(text, ground).joinToString(" on ") { context.resources.getResourceEntryName(it) }
                assertTrue(contrast >= 4.5f, "$names has $contrast, $qualifier")
            }
        }
    }
}
