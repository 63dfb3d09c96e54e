package dev.edgebert.app

import android.content.Context
import android.util.AttributeSet
import android.widget.LinearLayout

/** A LinearLayout that is no wider than its `android:maxWidth`. */
internal class Column(context: Context, attributes: AttributeSet) : LinearLayout(context, attributes) {
    private val widest: Int

    init {
        val found = context.obtainStyledAttributes(attributes, intArrayOf(android.R.attr.maxWidth))
        widest = found.getDimensionPixelSize(0, Int.MAX_VALUE)
        found.recycle()
    }

    override fun onMeasure(width: Int, height: Int) {
        val mode = MeasureSpec.getMode(width)
        val isTooWide = mode != MeasureSpec.UNSPECIFIED && MeasureSpec.getSize(width) > widest
        super.onMeasure(if (isTooWide) MeasureSpec.makeMeasureSpec(widest, mode) else width, height)
    }
}
