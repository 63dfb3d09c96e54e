package dev.edgebert.app

import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView

/** A button that starts some work, and cancels it; how far it has got; and what came of it, in [result]. */
internal class WorkingView<T>(view: View, private val result: ViewGroup) {
    private val context = view.context
    private val start: Button = view.findViewById(R.id.start)
    private val working: View = view.findViewById(R.id.working)
    private val progress: ProgressBar = view.findViewById(R.id.progress)
    private val step: TextView = view.findViewById(R.id.step)
    private var shown: Work<T>? = null

    /**
     * @param first text of the button before the first time.
     * @param again and after it.
     * @param begin starts the work.
     * @param fill puts what came of it into [result], once for each work that is done.
     */
    fun show(session: Session, work: Work<T>, first: Int, again: Int, begin: () -> Unit, fill: (T) -> Unit) {
        val running = work is Work.Running
        start.setText(if (running) R.string.cancel else if (work is Work.Idle) first else again)
        start.isEnabled = running || !session.isBusy
        start.setOnClickListener { if (session.isBusy) session.cancel() else begin() }
        working.show(running)
        if (work is Work.Running) {
            progress.progress = (work.share * progress.max).toInt()
            step.text = work.step
        }
        if (work === shown) return
        shown = work
        result.removeAllViews()
        result.show(work is Work.Done || work is Work.Failed || work is Work.Cancelled)
        when (work) {
            is Work.Done -> fill(work.result)
            is Work.Failed -> result.addText(work.why, R.style.Body).setTextColor(context.getColor(R.color.bad))
            is Work.Cancelled -> result.addText(context.getString(R.string.cancelled), R.style.Soft)
            is Work.Running, is Work.Idle -> Unit
        }
    }
}
