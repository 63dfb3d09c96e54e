package dev.edgebert.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.util.AttributeSet
import android.view.View
import kotlin.math.max

/** A share as a bar from the side where reading starts, and a second, fainter one behind it that goes further. */
internal class Bar(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val paint = Paint(Paint.ANTI_ALIAS_FLAG)
    private var share = 0f
    private var more = 0f
    private var strong = true

    /** Both shares go from 0 to 1; a bar that is not [strong] is one among others. */
    fun show(share: Double, more: Double = 0.0, strong: Boolean = true) {
        this.share = share.toFloat().coerceIn(0f, 1f)
        this.more = more.toFloat().coerceIn(0f, 1f)
        this.strong = strong
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        draw(canvas, 1f, context.getColor(R.color.track), 255)
        if (more > share) draw(canvas, more, context.getColor(R.color.accent), 90)
        if (share > 0f) draw(canvas, share, context.getColor(R.color.accent), if (strong) 255 else 150)
    }

    private fun draw(canvas: Canvas, share: Float, color: Int, alpha: Int) {
        paint.color = color
        paint.alpha = alpha
        val round = height / 2f
        val length = max(width * share, height.toFloat()) // a small share is a dot
        val start = if (layoutDirection == LAYOUT_DIRECTION_RTL) width - length else 0f
        canvas.drawRoundRect(start, 0f, start + length, height.toFloat(), round, round, paint)
    }
}
