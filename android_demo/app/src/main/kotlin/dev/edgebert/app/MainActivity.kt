package dev.edgebert.app

import android.app.Activity
import android.os.Bundle

/** The app's one window. */
class MainActivity : Activity() {
    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.main)
    }
}
