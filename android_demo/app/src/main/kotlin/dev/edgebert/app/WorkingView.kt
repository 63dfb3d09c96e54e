package dev.edgebert.app

import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView

/** A button that starts some work, and cancels it; and how far it has got. */
internal class WorkingView(view: View) {
    private val start: Button = view.findViewById(R.id.start)
    private val working: View = view.findViewById(R.id.working)
    private val progress: ProgressBar = view.findViewById(R.id.progress)
    private val step: TextView = view.findViewById(R.id.step)

    /** Texts for the button before the first time and after it. */
    fun show(session: Session, work: Work<*>, first: Int, again: Int, begin: () -> Unit) {
        val running = work is Work.Running
        start.setText(if (running) R.string.cancel else if (work is Work.Idle) first else again)
        start.isEnabled = running || !session.isBusy
        start.setOnClickListener { if (session.isBusy) session.cancel() else begin() }
        working.show(running)
        if (work is Work.Running) {
            progress.progress = (work.share * progress.max).toInt()
            step.text = work.step
        }
    }
}
