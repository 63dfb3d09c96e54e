package dev.edgebert.app

import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView

// The rows that screens are filled with. Each is read out as one.

internal fun ViewGroup.add(layout: Int): View =
    LayoutInflater.from(context).inflate(layout, this, false).also { addView(it) }

/** A name, its value, and a bar. */
internal fun ViewGroup.addBar(name: CharSequence, value: String, share: Double, strong: Boolean = true): View =
    add(R.layout.bar_row).apply {
        findViewById<TextView>(R.id.name).text = name
        findViewById<TextView>(R.id.value).text = value
        findViewById<Bar>(R.id.bar).show(share, strong = strong)
        contentDescription = context.getString(R.string.spoken_bar, name, value)
    }

/** A name beside what there is to say of it. */
internal fun ViewGroup.addFact(name: String, value: CharSequence) {
    add(R.layout.fact_row).apply {
        findViewById<TextView>(R.id.name).text = name
        findViewById<TextView>(R.id.value).text = value
        contentDescription = context.getString(R.string.spoken_bar, name, value)
    }
}

internal fun ViewGroup.addFact(name: Int, value: CharSequence) = addFact(context.getString(name), value)

/** Text in one of the styles, [above] dp below what is before it. */
internal fun ViewGroup.addText(text: CharSequence, style: Int, above: Int = 0): TextView =
    TextView(context, null, 0, style).also {
        it.text = text
        addView(it, wide(dp(above)))
    }

internal fun ViewGroup.addButton(text: Int, style: Int, above: Int, clicked: () -> Unit): Button =
    Button(context, null, 0, style).also {
        it.setText(text)
        it.setOnClickListener { clicked() }
        addView(it, LinearLayout.LayoutParams(WRAP, WRAP).apply { topMargin = dp(above) })
    }

internal fun wide(above: Int) = LinearLayout.LayoutParams(MATCH, WRAP).apply { topMargin = above }

internal fun View.dp(value: Int): Int = (value * resources.displayMetrics.density).toInt()

internal fun View.show(shown: Boolean) {
    visibility = if (shown) View.VISIBLE else View.GONE
}

private const val WRAP = ViewGroup.LayoutParams.WRAP_CONTENT
private const val MATCH = ViewGroup.LayoutParams.MATCH_PARENT
