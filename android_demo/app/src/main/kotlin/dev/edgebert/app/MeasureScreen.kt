package dev.edgebert.app

import android.os.Build
import android.view.View
import android.view.ViewGroup
import android.widget.TextView

/** How long the model takes on this phone: lengths and threads as a table with bars, to be shared. */
internal class MeasureScreen(
    view: View,
    private val session: Session,
    private val phone: Phone,
    private val share: (String) -> Unit,
) {
    private val context = view.context
    private val result: ViewGroup = view.findViewById(R.id.measure_result)
    private val working = WorkingView<Measured>(view, result)

    init {
        view.findViewById<TextView>(R.id.phone).text =
            if (phone.name == Build.UNKNOWN) context.getString(R.string.no_phone) else phone.name
        view.findViewById<TextView>(R.id.phone_cores).text =
            context.getString(R.string.cores, phone.coreCount, phone.bigCores)
        view.findViewById<TextView>(R.id.measure_text).text =
            context.getString(R.string.measure_text, Timing.WARM_UP, Timing.RUNS)
        val features = view.findViewById<ViewGroup>(R.id.phone_features)
        chip(features, R.string.has_dot, phone.hasDotProduct)
        chip(features, R.string.has_half, phone.hasHalf)
        chip(features, R.string.has_i8mm, phone.hasI8mm)
    }

    private fun chip(into: ViewGroup, name: Int, has: Boolean) {
        val chip = into.add(R.layout.chip) as TextView
        chip.setText(name)
        chip.isActivated = has
        chip.contentDescription = context.getString(if (has) R.string.has else R.string.lacks, context.getString(name))
    }

    fun show() = working.show(
        session, session.measuring, R.string.measure_start, R.string.measure_again, session::measure, ::table,
    )

    private fun table(measured: Measured) {
        if (!phone.isReal) result.addText(context.getString(R.string.not_a_phone), R.style.Soft)
        val slowest = measured.timings.maxOf { it.p90 }
        for ((length, timings) in measured.timings.groupBy { it.length }) {
            val head = result.add(R.layout.time_head)
            head.findViewById<TextView>(R.id.length).text = context.plural(R.plurals.tokens, length)
            for (timing in timings) row(timing, slowest)
        }
        result.addButton(R.string.measure_share, R.style.Tonal, above = 16) { share(measured.toJson()) }
    }

    private fun row(timing: Timing, slowest: Double) = result.add(R.layout.time_row).apply {
        val threads = context.plural(R.plurals.threads, timing.threads)
        val length = context.plural(R.plurals.tokens, timing.length)
        findViewById<TextView>(R.id.threads).text = threads
        findViewById<TextView>(R.id.median).text = milliseconds(timing.median)
        findViewById<TextView>(R.id.p90).text = milliseconds(timing.p90)
        findViewById<Bar>(R.id.bar).show(timing.median / slowest, timing.p90 / slowest)
        contentDescription = context.getString(
            R.string.spoken_row, length, threads, milliseconds(timing.median), milliseconds(timing.p90),
        )
    }
}
