package dev.edgebert.app

import android.content.Context
import android.util.AttributeSet
import android.view.View
import android.view.ViewGroup
import kotlin.math.max

/** Children one beside the other, in as many lines as they need: with large letters buttons do not fit in one. */
internal class Flow(context: Context, attributes: AttributeSet?) : ViewGroup(context, attributes) {
    private val gap = (8 * resources.displayMetrics.density).toInt()

    private val shown get() = (0 until childCount).map { getChildAt(it) }.filter { it.visibility != View.GONE }

    override fun onMeasure(width: Int, height: Int) {
        val room = MeasureSpec.getSize(width)
        for (child in shown) {
            child.measure(
                MeasureSpec.makeMeasureSpec(room, MeasureSpec.AT_MOST),
                getChildMeasureSpec(height, 0, child.layoutParams.height),
            )
        }
        setMeasuredDimension(room, place(room) { _, _, _ -> })
    }

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        val room = right - left
        place(room) { child, x, y ->
            val start = if (layoutDirection == View.LAYOUT_DIRECTION_RTL) room - x - child.measuredWidth else x
            child.layout(start, y, start + child.measuredWidth, y + child.measuredHeight)
        }
    }

    /** Tells of each child where it goes, counted from the side where reading starts; returns the height of all. */
    private fun place(room: Int, put: (View, Int, Int) -> Unit): Int {
        var x = 0
        var y = 0
        var line = 0
        for (child in shown) {
            if (x > 0 && x + child.measuredWidth > room) {
                x = 0
                y += line + gap
                line = 0
            }
            put(child, x, y)
            x += child.measuredWidth + gap
            line = max(line, child.measuredHeight)
        }
        return y + line
    }
}
